package engine

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/ident"
)

// What workers say to each other: entries of one stream for each worker. An entry is its kind, the instance that it is
// for (0: all), and fields; frames go as they will go to clients, so that nobody encodes twice.

type entryKind uint8

const (
	entryPublish  entryKind = iota + 1 // a frame for the members of a room
	entrySpread                        // for the members of several rooms, or everybody where there is none
	entryMatching                      // for the connections with an attribute's value
	entryFiltered                      // for the connections that a named filter accepts
	entryDirect                        // for one connection
	entryCount                         // how many members a room has here
	entryRequest                       // a question; the answer carries its number
	entryAnswer
	entryVacate  // a room that nobody created has been deleted
	entryFull    // whether a worker takes no more connections
	entryFigures // what a worker tells of itself
)

var errEntry = errors.New("the entry is damaged")

// entryHead is the size of kind and target.
const entryHead = 3

// entryWriter puts an entry together.
type entryWriter struct{ buf []byte }

func (w *entryWriter) begin(kind entryKind, target ident.Worker) *entryWriter {
	w.buf = append(w.buf[:0], byte(kind))
	w.buf = binary.BigEndian.AppendUint16(w.buf, target.Instance())
	return w
}

func (w *entryWriter) number(n uint64) *entryWriter {
	w.buf = binary.AppendUvarint(w.buf, n)
	return w
}

func (w *entryWriter) text(s string) *entryWriter {
	w.buf = append(binary.AppendUvarint(w.buf, uint64(len(s))), s...)
	return w
}

func (w *entryWriter) bytes(b []byte) *entryWriter {
	w.buf = append(binary.AppendUvarint(w.buf, uint64(len(b))), b...)
	return w
}

// places are those of any worker's connections.
func (w *entryWriter) places(list []ident.ID) *entryWriter {
	w.number(uint64(len(list)))
	for _, p := range list {
		w.buf = binary.BigEndian.AppendUint16(w.buf, p.Worker.Instance())
		w.place(p.Place)
	}
	return w
}

const placeBytes = 2 + 1 + 4 + 8

// place is that of a connection of whoever reads it.
func (w *entryWriter) place(p place) *entryWriter {
	w.buf = append(w.buf, p.Loop)
	w.buf = binary.BigEndian.AppendUint32(w.buf, p.Slot)
	w.buf = binary.BigEndian.AppendUint64(w.buf, p.Gen)
	return w
}

// frame is the entry's last field: it needs no length.
func (w *entryWriter) frame(f *outFrame) *entryWriter {
	w.buf = append(w.buf, f.plain...)
	return w
}

// entryReader takes an entry apart. Once something does not fit, everything is empty and bad is set.
type entryReader struct {
	rest []byte
	bad  bool
}

func (r *entryReader) number() uint64 {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 {
		r.rest, r.bad = nil, true
		return 0
	}
	r.rest = r.rest[size:]
	return n
}

// bytes are borrowed.
func (r *entryReader) bytes() []byte {
	n := r.number()
	if n > uint64(len(r.rest)) {
		r.rest, r.bad = nil, true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// readPlace reads the connection's place that b begins with.
func readPlace(b []byte) (worker ident.Worker, p place) {
	return ident.On(0, binary.BigEndian.Uint16(b)), placeOf(b[2:])
}

// places keeps those of our own.
func (r *entryReader) places(worker ident.Worker) (own []place) {
	n := r.number()
	if n > uint64(len(r.rest)/placeBytes) {
		r.rest, r.bad = nil, true
		return nil
	}
	for range n {
		of, p := readPlace(r.rest)
		r.rest = r.rest[placeBytes:]
		if of == worker {
			own = append(own, p)
		}
	}
	return own
}

// ownPlace is what [entryWriter.place] wrote.
func (r *entryReader) ownPlace() (p place) {
	if len(r.rest) < placeBytes-2 {
		r.rest, r.bad = nil, true
		return p
	}
	p = placeOf(r.rest)
	r.rest = r.rest[placeBytes-2:]
	return p
}

func placeOf(b []byte) place {
	return place{Loop: b[0], Slot: binary.BigEndian.Uint32(b[1:]), Gen: binary.BigEndian.Uint64(b[5:])}
}

// message reads what entries with a message end with: connections of a worker, whom it is for or not for, and the frame,
// which is nil where something does not fit.
func (r *entryReader) message(worker ident.Worker) (places []place, f *outFrame) {
	places = r.places(worker)
	return places, r.frame()
}

// frame copies what is left: it outlives the entry.
func (r *entryReader) frame() *outFrame {
	f, buf := allocFrame(len(r.rest))
	f.plain = append(buf, r.rest...)
	if !f.wholeMessage() {
		r.bad = true
		return nil
	}
	return f
}

// wholeMessage says of what f is made, and reports whether that is one unmasked message, as we write it: anything else
// would break the streams of all who are given it.
func (f *outFrame) wholeMessage() bool {
	if len(f.plain) < 2 {
		return false
	}
	f.op, f.payload = ws.OpCode(f.plain[0]&0x0f), 2
	switch f.plain[1] {
	case 126:
		f.payload = 4
	case 127:
		f.payload = 10
	}
	n := len(f.plain) - int(f.payload)
	if n < 0 || f.op != ws.OpText && f.op != ws.OpBinary {
		return false
	}
	var header [ws.MaxHeaderSize]byte
	return bytes.Equal(frame.AppendHeader(header[:0], f.op, n), f.plain[:f.payload])
}
