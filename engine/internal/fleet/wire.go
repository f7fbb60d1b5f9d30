// Package fleet encodes the messages between the workers of one server. The table of kinds and the table of verbs list all
// of them.
//
// What it refuses to do: I/O, keeping state, and knowing a loop, a room or a session.
//
// Start reading at [Kind] and the table of kinds below it, then [Entry] and [Decode].
package fleet

import (
	"bytes"
	"encoding/binary"
	"errors"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/ident"
)

// Problem: during a deploy, workers of two versions are one server.
//
// Steps: an entry begins with the version of the program that wrote it. Versions only add: a kind, a verb, or a field behind
// the last one of a kind. If the entry's version is higher than the reader's, the reader skips an unknown kind and unknown
// fields; otherwise such an entry is damaged. A field of a later version is marked with appended, and is zero in entries
// that are older.
//
// What lost: JSON, which skips fields by itself (ten times the time for each message to a room).

// Version is the version of the entries that this program writes. Each release that adds to a table here increases it by
// one. Programs without versions began an entry with its kind, which was below 64.
const (
	Version = 67
	oldest  = 64
)

// Kind says what an entry is about.
type Kind uint8

// The kinds of entries. The number of a kind is never used again for another.
const (
	Skipped  Kind = iota // as [Decode] reports it: not for this worker, or of a kind that only newer versions know
	Publish              // a frame for the members of a room
	Spread               // a frame for the members of several rooms, or for all connections where no room is named
	Matching             // a frame for the connections that have an attribute with a value
	Filtered             // a frame for the connections that a named filter accepts
	Direct               // a frame for one connection
	Count                // the number of members that a room has on the writing worker
	Request              // a question; its answer carries the same number
	Answer
	Vacate  // a room that no application created has been deleted
	Full    // whether the worker takes no more connections
	Figures // the worker's figures
	Notice  // a member has joined or left a room, with the frame for the room's members
	Roster  // the members of a room on one loop
	Quiet   // the room no longer announces members
	Wish    // the kinds of events that the writing worker wants from the others
	Event   // an event of a connection, as JSON
	Census  // a question for the counts of all rooms
	Post    // a frame for the connections at an address
	News    // a change of a state that all workers share, or a question for the whole of it
	Order   // an entry of the sequencer's stream: see package order
	KindsEnd
)

// field is one field of an entry.
type field uint8

const (
	fieldRoom field = iota
	fieldRooms
	fieldKey
	fieldPayload
	fieldConns
	fieldFrame
	fieldNumber
	fieldVerb
	fieldMembers
	fieldAsks
	fieldOn
	fieldLoop
	fieldEvents
	fieldFigures
	fieldUsers

	// appended marks a field that older versions do not write. Where it is the last one and empty, this one does not either.
	appended field = 1 << 7
)

// row is one kind: its name, its fields in order, and the method of engine.Server that handles it.
type row struct {
	name    string
	fields  []field
	handler string
}

var kinds = [KindsEnd]row{
	Publish:  {"publish", []field{fieldRoom, fieldConns, fieldFrame}, "hearPublish"},
	Spread:   {"spread", []field{fieldRooms, fieldConns, fieldFrame}, "HearSpread"},
	Matching: {"matching", []field{fieldKey, fieldPayload, fieldConns, fieldFrame}, "hearChosen"},
	Filtered: {"filtered", []field{fieldKey, fieldPayload, fieldConns, fieldFrame}, "hearChosen"},
	Direct:   {"direct", []field{fieldConns, fieldFrame}, "HearDirect"},
	Count:    {"count", []field{fieldRoom, fieldMembers, fieldAsks}, "HearCount"},
	Request:  {"request", []field{fieldNumber, fieldVerb, fieldPayload}, "HearRequest"},
	Answer:   {"answer", []field{fieldNumber, fieldPayload}, "HearAnswer"},
	Vacate:   {"vacate", []field{fieldRoom}, "HearVacate"},
	Full:     {"full", []field{fieldOn}, "NoteFull"},
	Figures:  {"figures", []field{fieldFigures}, "HearFigures"},
	Notice:   {"notice", []field{fieldRoom, fieldOn, fieldConns, fieldFrame, fieldUsers | appended}, "hearNotice"},
	Roster:   {"roster", []field{fieldRoom, fieldLoop, fieldConns, fieldUsers | appended}, "hearRoster"},
	Quiet:    {"quiet", []field{fieldRoom}, "hearQuiet"},
	Wish:     {"wish", []field{fieldEvents, fieldAsks}, "HearWish"},
	Event:    {"event", []field{fieldPayload}, "hearEvent"},
	Census:   {"census", nil, "HearCensus"},
	News:     {"news", []field{fieldKey, fieldAsks, fieldPayload}, "hearNews"},
	Post:     {"post", []field{fieldPayload, fieldFrame}, "HearPost"},
	Order:    {"order", []field{fieldPayload}, "HearOrder"},
}

// String is the kind's name.
func (k Kind) String() string {
	if k > Skipped && k < KindsEnd {
		return kinds[k].name
	}
	return "skipped"
}

// Body has the fields that an entry has in the same form before it is written and after it is read. The kind decides which
// are used; the others are zero.
//
// Owner: that of the Entry or the Heard.
type Body struct {
	Payload []byte // of Matching and Filtered: the value; of Request and Answer: see [Verb]; of Event: JSON; of Post: [Address]; of Order: see package order
	Number  uint64 // of a question
	Verb    Verb   // what a Request asks for
	Members uint64 // of a room
	Asks    Asks   // what the writer asks of the reader
	On      bool   // of Full: no more connections are taken; of Notice: the member has joined
	Loop    uint8  // of Roster
	Events  uint32 // of Wish: one bit for each kind of event
	Figures FigureSet
}

// FigureSet has the figures of one worker.
//
// Owner: that of the Entry or the Heard.
type FigureSet struct{ Connections, Rooms, Sent, Received, Memory, Uptime uint64 }

// Asks says which answers the writer of a Count or a Wish expects from the worker that reads it.
type Asks uint64

// The bits of Asks.
const (
	AsksNothing Asks = iota
	AsksMembers      // of Count: the reader's members of the room, if it has any; of Wish: the reader's wish, if it has one
	AsksAnyway       // of Count: the reader's count, even if it is 0
)

// Entry is one message from a worker to another worker, or to all.
//
// Owner: the goroutine that made it.
type Entry struct {
	Kind   Kind
	Target ident.Worker // 0: all others
	Room   string
	Rooms  []string
	Key    string     // of an attribute or a filter
	Conns  []ident.ID // Publish, Spread, Matching, Filtered: the excepted connections; Direct: the addressed ones
	Frame  []byte     // one whole unmasked message, as clients get it
	Users  []string   // of Conns, in their order, "" for none; empty: no user is told
	Body
}

// Append writes an entry.
func Append(dst []byte, e *Entry) []byte {
	w := Writer{append(dst, Version, byte(e.Kind))}
	w.B = binary.BigEndian.AppendUint16(w.B, e.Target.Instance())
	for _, f := range kinds[e.Kind].fields {
		if f == fieldUsers|appended && len(e.Users) == 0 {
			continue
		}
		e.append(&w, f&^appended)
	}
	return w.B
}

func (e *Entry) append(w *Writer, f field) {
	switch f {
	case fieldRoom:
		w.Text(e.Room)
	case fieldRooms:
		w.Number(uint64(len(e.Rooms)))
		for _, name := range e.Rooms {
			w.Text(name)
		}
	case fieldKey:
		w.Text(e.Key)
	case fieldPayload:
		w.Bytes(e.Payload)
	case fieldConns:
		w.IDs(e.Conns)
	case fieldFrame: // a frame has its own length
		w.B = append(w.B, e.Frame...)
	case fieldNumber:
		w.Number(e.Number)
	case fieldVerb:
		w.Number(uint64(e.Verb))
	case fieldMembers:
		w.Number(e.Members)
	case fieldAsks:
		w.Number(uint64(e.Asks))
	case fieldOn:
		w.Flag(e.On)
	case fieldLoop:
		w.Number(uint64(e.Loop))
	case fieldEvents:
		w.Number(uint64(e.Events))
	case fieldFigures:
		x := &e.Figures
		w.Number(x.Connections).Number(x.Rooms).Number(x.Sent).Number(x.Received).Number(x.Memory).Number(x.Uptime)
	case fieldUsers:
		w.texts(e.Users)
	}
}

// Heard is an entry from another worker. Its fields borrow the bytes that it was read from.
//
// Owner: the goroutine that read it.
type Heard struct {
	Kind  Kind
	Newer bool // a kind or fields were skipped, because the entry's version is newer than this program
	Room  []byte
	Rooms [][]byte
	Key   []byte
	Conns IDs
	Frame []byte
	Users []string // a copy
	Body
}

// ErrEntry is the error for bytes that are no entry, or a damaged one.
var ErrEntry = errors.New("the entry is damaged")

// HeadBytes is the size of version, kind and target.
const HeadBytes = 4

// Decode reads all fields of an entry for worker self. An entry for another worker is skipped unread. Errors: [ErrEntry].
func Decode(raw []byte, self ident.Worker) (h Heard, err error) {
	if len(raw) < HeadBytes || raw[0] < oldest {
		return h, ErrEntry
	}
	version, kind := raw[0], Kind(raw[1])
	if target := ident.On(0, binary.BigEndian.Uint16(raw[2:])); target != 0 && target != self {
		return h, nil
	}
	if kind == Skipped || kind >= KindsEnd {
		h.Newer = version > Version
		if !h.Newer {
			err = ErrEntry
		}
		return h, err
	}
	r := Reader{Rest: raw[HeadBytes:]}
	h.read(&r, kinds[kind].fields)
	h.Newer = len(r.Rest) > 0
	if r.Bad || h.Newer && version <= Version {
		return Heard{}, ErrEntry
	}
	h.Kind = kind
	return h, nil
}

func (h *Heard) read(r *Reader, fields []field) {
	for _, f := range fields {
		if f&appended != 0 && len(r.Rest) == 0 {
			return
		}
		h.take(r, f&^appended)
	}
}

func (h *Heard) take(r *Reader, f field) {
	switch f {
	case fieldRoom:
		h.Room = r.Bytes()
	case fieldRooms:
		for range min(r.Number(), uint64(len(r.Rest))) {
			h.Rooms = append(h.Rooms, r.Bytes())
		}
	case fieldKey:
		h.Key = r.Bytes()
	case fieldPayload:
		h.Payload = r.Bytes()
	case fieldConns:
		h.Conns = r.IDs()
	case fieldFrame:
		h.Frame = r.Frame()
	case fieldNumber:
		h.Number = r.Number()
	case fieldVerb:
		h.Verb = Verb(r.Byte())
	case fieldMembers:
		h.Members = r.Number()
	case fieldAsks:
		h.Asks = Asks(r.Number())
	case fieldOn:
		h.On = r.Flag()
	case fieldLoop:
		h.Loop = r.Byte()
	case fieldEvents:
		h.Events = uint32(r.Number())
	case fieldFigures:
		h.Figures = FigureSet{r.Number(), r.Number(), r.Number(), r.Number(), r.Number(), r.Number()}
	case fieldUsers:
		h.Users = r.texts()
	}
}

// Frame reads one unmasked message as this program writes it. Any other bytes would break the streams of all connections
// that get them.
func (r *Reader) Frame() []byte {
	header, payload := FrameSize(r.Rest)
	if header == 0 {
		r.fail()
		return nil
	}
	return r.take(header + payload)
}

// FrameSize is the size of the header and of the payload of the message at the start of b. The header is 0 if b does not
// start with a whole message.
func FrameSize(b []byte) (header, payload int) {
	if len(b) < 2 {
		return 0, 0
	}
	n := uint64(b[1])
	switch header = 2; {
	case n == 126 && len(b) >= 4:
		header, n = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case n == 127 && len(b) >= 10:
		header, n = 10, binary.BigEndian.Uint64(b[2:])
	}
	if op := ws.OpCode(b[0] & 0x0f); n > uint64(len(b)-header) || op != ws.OpText && op != ws.OpBinary {
		return 0, 0
	}
	var again [ws.MaxHeaderSize]byte
	if !bytes.Equal(frame.AppendHeader(again[:0], ws.OpCode(b[0]&0x0f), int(n)), b[:header]) {
		return 0, 0
	}
	return header, int(n)
}
