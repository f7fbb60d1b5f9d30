package fleet

import (
	"encoding/binary"

	"github.com/parleyd/parley/protocol/ident"
)

// The parts of entries, questions, answers and stored sessions. Numbers are unsigned varints, texts and byte strings have
// their length in front, workers and places have a fixed size, in big endian.

// Writer appends to B. Each method returns the writer, so that calls can be chained.
type Writer struct{ B []byte }

// Number appends n.
func (w *Writer) Number(n uint64) *Writer {
	w.B = binary.AppendUvarint(w.B, n)
	return w
}

// Flag appends a number that is 1 where on is true, else 0.
func (w *Writer) Flag(on bool) *Writer {
	if on {
		return w.Number(1)
	}
	return w.Number(0)
}

// Text appends s and its length.
func (w *Writer) Text(s string) *Writer {
	w.B = append(binary.AppendUvarint(w.B, uint64(len(s))), s...)
	return w
}

// Bytes appends b and its length.
func (w *Writer) Bytes(b []byte) *Writer {
	w.B = append(binary.AppendUvarint(w.B, uint64(len(b))), b...)
	return w
}

// IDs appends a list of connections.
func (w *Writer) IDs(list []ident.ID) *Writer {
	w.Number(uint64(len(list)))
	for _, id := range list {
		w.B = binary.BigEndian.AppendUint16(w.B, id.Worker.Instance())
		w.Place(id.Place)
	}
	return w
}

const (
	placeBytes = 1 + 4 + 8
	idBytes    = 2 + placeBytes
)

// Place appends the place of a connection of the worker that reads it.
func (w *Writer) Place(p ident.Place) *Writer {
	w.B = append(w.B, p.Loop)
	w.B = binary.BigEndian.AppendUint32(w.B, p.Slot)
	w.B = binary.BigEndian.AppendUint64(w.B, p.Gen)
	return w
}

// Reader takes apart the bytes of a [Writer]. When a part does not fit, Bad is set, and Rest and all further parts are
// empty. Byte strings and lists are borrowed from Rest.
type Reader struct {
	Rest []byte
	Bad  bool
}

func (r *Reader) fail() { r.Rest, r.Bad = nil, true }

// Number reads a number.
func (r *Reader) Number() uint64 {
	n, size := binary.Uvarint(r.Rest)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.Rest = r.Rest[size:]
	return n
}

// Byte reads a number of at most 255.
func (r *Reader) Byte() uint8 {
	n := r.Number()
	if n > 1<<8-1 {
		r.fail()
		return 0
	}
	return uint8(n)
}

// Flag reports whether a number is not 0.
func (r *Reader) Flag() bool { return r.Number() != 0 }

// Bytes reads a text or a byte string.
func (r *Reader) Bytes() []byte {
	n := r.Number()
	if n > uint64(len(r.Rest)) {
		r.fail()
		return nil
	}
	return r.take(int(n))
}

func (r *Reader) take(n int) []byte {
	if n > len(r.Rest) {
		r.fail()
		return nil
	}
	b := r.Rest[:n:n]
	r.Rest = r.Rest[n:]
	return b
}

// IDs reads a list of connections.
func (r *Reader) IDs() IDs {
	n := r.Number()
	if n > uint64(len(r.Rest)/idBytes) {
		r.fail()
		return nil
	}
	return IDs(r.take(int(n) * idBytes))
}

// Place reads the place of a connection of the worker that reads it.
func (r *Reader) Place() (p ident.Place) {
	if b := r.take(placeBytes); b != nil {
		p = placeOf(b)
	}
	return p
}

func placeOf(b []byte) ident.Place {
	return ident.Place{Loop: b[0], Slot: binary.BigEndian.Uint32(b[1:]), Gen: binary.BigEndian.Uint64(b[5:])}
}

// IDs is a list of connections in an entry's bytes, which it borrows.
type IDs []byte

// Len is the number of connections.
func (l IDs) Len() int { return len(l) / idBytes }

// At is one connection of the list.
func (l IDs) At(i int) ident.ID {
	b := l[i*idBytes:]
	return ident.ID{Worker: ident.On(0, binary.BigEndian.Uint16(b)), Place: placeOf(b[2:])}
}

// Of returns the places of those connections that live on worker w.
func (l IDs) Of(w ident.Worker) (places []ident.Place) {
	for i := range l.Len() {
		if id := l.At(i); id.Worker == w {
			places = append(places, id.Place)
		}
	}
	return places
}
