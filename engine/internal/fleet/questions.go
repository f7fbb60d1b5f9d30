package fleet

import (
	"encoding/binary"

	"github.com/parleyd/parley/protocol/ident"
)

// Verb says which question is asked. A reader leaves a question with an unknown verb unanswered, and the question fails on
// the asking worker when its time is up.
type Verb uint8

// The verbs: the fields of the question, and its answer. A list reaches to the end of an answer. A later version may add
// fields behind the last one of a question, or of an answer that ends with no list; a reader skips unknown ones.
const (
	HandOver    Verb = 1         // [HandOverQuestion]; [HandedOver], and perhaps a session
	Connections Verb = iota + 63 // nothing; the number of open connections
	Stats                        // nothing; JSON
	Members                      // [MembersQuestion]; [MembersPage]
	Rooms                        // where in the index to begin; where to continue (0: nowhere), and a list of [RoomRow]
	Find                         // [FindQuestion]; [FindPage], and a list of byte strings, the facts of a connection each
	Facts                        // place; [Outcome], and JSON
	Close                        // place, code, reason; [Outcome]
	Join                         // place, room; [Outcome]
	Leave                        // place, room; [Outcome]
	Send                         // place, frame; [Outcome]
	PostCounted                  // [Address], frame; [Outcome], and the number of connections
	UserCounts                   // texts; a number each
	UserNames                    // [NamesQuestion]; [NamesPage], and a list of [UserRow]
	RoomNames                    // [NamesQuestion]; [NamesPage], and a list of [RoomRow]
	Room                         // room; nothing, or [RoomRow]
	MemberUsers                  // [MembersQuestion]; [MembersPage], and the user of each member
	Conns                        // [ConnsQuestion]; [FindPage], and a list of byte strings, the JSON of a connection each
	ConnsTop                     // an order, and the number of rows; a list of [TopRow]
	CloseAt                      // [CloseQuestion]; the number of connections
	JoinAt                       // [Address], room; the number of connections, and the [Outcome] of the first that failed
	LeaveAt                      // [Address], room; the number of connections
	Attributes                   // place, [AttributesChange]; [Outcome], and JSON
	Delivered                    // room, epoch, seq; whether the room has that epoch, members that have the message, members
)

// HandOverQuestion asks the owner of a session to end the session's connection.
type HandOverQuestion struct {
	Key    [16]byte
	Heir   ident.Worker // the worker that asks
	Ticket [16]byte     // with which the heir takes the seats
}

// AppendTo writes the question.
func (q HandOverQuestion) AppendTo(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, q.Key[:]...), q.Heir.Instance())
	return append(b, q.Ticket[:]...)
}

// ReadHandOver reads the question.
func ReadHandOver(b []byte) (q HandOverQuestion, ok bool) {
	r := Reader{Rest: b}
	copy(q.Key[:], r.take(len(q.Key)))
	if heir := r.take(2); heir != nil {
		q.Heir = ident.On(0, binary.BigEndian.Uint16(heir))
	}
	copy(q.Ticket[:], r.take(len(q.Ticket)))
	return q, !r.Bad
}

// HandedOver is the first byte of an answer to HandOver.
type HandedOver uint8

// The answers.
const (
	HandedOverNothing HandedOver = iota // the connection and its parked state are gone: the store's state counts
	HandedOverState                     // the state follows
	HandedOverSpent                     // resumed too often in a row: the connection stays
	HandedOverEnded                     // it was revoked: the claim is in vain
)

// Cursor is a place in a room's members: a loop, and the number of members that are left there.
type Cursor struct {
	Loop uint8
	Left uint32
}

func (w *Writer) cursor(c Cursor) *Writer { return w.Number(uint64(c.Loop)).Number(uint64(c.Left)) }

func (r *Reader) cursor() Cursor { return Cursor{uint8(r.Number()), uint32(r.Number())} }

// MembersQuestion asks for a page of a room's members.
type MembersQuestion struct {
	Room []byte
	Max  int
	From Cursor
}

// AppendTo writes the question.
func (q MembersQuestion) AppendTo(b []byte) []byte {
	w := Writer{b}
	return w.Bytes(q.Room).Number(uint64(q.Max)).cursor(q.From).B
}

// Read reads the question.
func (q *MembersQuestion) Read(r *Reader) {
	*q = MembersQuestion{r.Bytes(), int(r.Number()), r.cursor()}
}

// MembersPage is the answer to MembersQuestion.
type MembersPage struct {
	Count int // of all members on the worker
	More  bool
	Next  Cursor // where More is true
}

// AppendTo writes the answer: the page, and its members.
func (p MembersPage) AppendTo(b []byte, members []ident.ID) []byte {
	w := Writer{b}
	return w.Number(uint64(p.Count)).Flag(p.More).cursor(p.Next).IDs(members).B
}

// Read reads the answer.
func (p *MembersPage) Read(r *Reader) (members IDs) {
	*p = MembersPage{int(r.Number()), r.Flag(), r.cursor()}
	return r.IDs()
}

// RoomRow is one room of a list.
//
// Owner: the goroutine that made it.
type RoomRow struct {
	Name                           string
	Members, CreatedAt, MaxMembers uint64
	Metadata                       []byte
}

// AppendTo writes the row.
func (x RoomRow) AppendTo(b []byte) []byte {
	w := Writer{b}
	return w.Text(x.Name).Number(x.Members).Number(x.CreatedAt).Number(x.MaxMembers).Bytes(x.Metadata).B
}

// Read reads the row.
func (x *RoomRow) Read(r *Reader) {
	*x = RoomRow{string(r.Bytes()), r.Number(), r.Number(), r.Number(), r.Bytes()}
}

// FindQuestion asks for the connections that a spread by attribute or filter would reach, from a place on.
//
// Owner: the goroutine that made it.
type FindQuestion struct {
	Kind       Kind // [Matching] or [Filtered]
	Key        []byte
	Value      []byte
	Loop, Slot uint64
}

// AppendTo writes the question.
func (q FindQuestion) AppendTo(b []byte) []byte {
	w := Writer{b}
	return w.Number(uint64(q.Kind)).Bytes(q.Key).Bytes(q.Value).Number(q.Loop).Number(q.Slot).B
}

// Read reads the question.
func (q *FindQuestion) Read(r *Reader) {
	*q = FindQuestion{Kind(r.Byte()), r.Bytes(), r.Bytes(), r.Number(), r.Number()}
}

// FindPage begins the answer: where the search continues, if it does.
type FindPage struct {
	More       bool
	Loop, Slot uint64
}

// AppendTo writes the beginning of the answer.
func (p FindPage) AppendTo(b []byte) []byte {
	w := Writer{b}
	return w.Flag(p.More).Number(p.Loop).Number(p.Slot).B
}

// Read reads the beginning of the answer.
func (p *FindPage) Read(r *Reader) { *p = FindPage{r.Flag(), r.Number(), r.Number()} }

// Outcome begins the answer to a question about one connection.
type Outcome uint64

// The outcomes.
const (
	Done    Outcome = iota
	Unknown         // there is no such connection
	NotOpen
	Refused // a code of the wire protocol and a text follow
	TooMuch // of Attributes: they exceed attributes_bytes_max
)
