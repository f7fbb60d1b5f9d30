package fleet

import (
	"encoding/json"

	"github.com/parleyd/parley/protocol/ident"
)

// Questions for pages of users, rooms, members and connections, and for what is done to connections at an address.

// NamesQuestion asks for a page of users, or of rooms, behind a place in the order of shards and names.
//
// Owner: the goroutine that made it.
type NamesQuestion struct {
	Shard  uint64
	After  string
	Prefix string // of rooms: only names that begin so
	Max    uint64 // rows
}

// AppendTo writes the question.
func (q NamesQuestion) AppendTo(b []byte) []byte {
	w := Writer{b}
	return w.Number(q.Shard).Text(q.After).Text(q.Prefix).Number(q.Max).B
}

// Read reads the question.
func (q *NamesQuestion) Read(r *Reader) {
	*q = NamesQuestion{r.Number(), string(r.Bytes()), string(r.Bytes()), r.Number()}
}

// NamesPage begins the answer: with More, all names up to a place are listed, and there are others behind.
type NamesPage struct {
	More  bool
	Shard uint64
	After string
}

// AppendTo writes the beginning of the answer.
func (p NamesPage) AppendTo(b []byte) []byte {
	w := Writer{b}
	return w.Flag(p.More).Number(p.Shard).Text(p.After).B
}

// Read reads the beginning of the answer.
func (p *NamesPage) Read(r *Reader) { *p = NamesPage{r.Flag(), r.Number(), string(r.Bytes())} }

// UserRow is one user of a list.
type UserRow struct {
	User        string
	Connections uint64
}

// AppendTo writes the row.
func (x UserRow) AppendTo(b []byte) []byte {
	w := Writer{b}
	return w.Text(x.User).Number(x.Connections).B
}

// Read reads the row.
func (x *UserRow) Read(r *Reader) { *x = UserRow{string(r.Bytes()), r.Number()} }

// AppendTexts writes a list of texts.
func AppendTexts(b []byte, list []string) []byte {
	w := Writer{b}
	return w.texts(list).B
}

// Texts reads a list of texts.
func (r *Reader) Texts() []string { return r.texts() }

// ConnsQuestion asks for the connections that a filter accepts, in the order of loops and slots. Empty fields accept all.
//
// Owner: the goroutine that made it.
type ConnsQuestion struct {
	IDs        []ident.ID // only these
	User       string
	Room       string
	Address    string
	Key        string // of an attribute that has Value
	Value      []byte
	Loop, Slot uint64 // where to begin
	Max        uint64 // rows
}

// AppendTo writes the question.
func (q *ConnsQuestion) AppendTo(b []byte) []byte {
	w := Writer{b}
	w.IDs(q.IDs).Text(q.User).Text(q.Room).Text(q.Address).Text(q.Key).Bytes(q.Value)
	return w.Number(q.Loop).Number(q.Slot).Number(q.Max).B
}

// Read reads the question. The value is borrowed.
func (q *ConnsQuestion) Read(r *Reader) {
	*q = ConnsQuestion{r.IDs().all(), string(r.Bytes()), string(r.Bytes()), string(r.Bytes()), string(r.Bytes()), r.Bytes(),
		r.Number(), r.Number(), r.Number()}
}

// TopRow is one of the first connections in an order by number.
type TopRow struct {
	By    uint64
	Place ident.Place
}

// AppendTo writes the row.
func (x TopRow) AppendTo(b []byte) []byte {
	w := Writer{b}
	return w.Number(x.By).Place(x.Place).B
}

// Read reads the row.
func (x *TopRow) Read(r *Reader) { *x = TopRow{r.Number(), r.Place()} }

// CloseQuestion asks to end the connections at an address.
//
// Owner: the goroutine that made it.
type CloseQuestion struct {
	At      Address
	Code    uint64
	Reason  string
	Session bool // their sessions end, too, and those that wait for a connection
}

// AppendTo writes the question.
func (q *CloseQuestion) AppendTo(b []byte) []byte {
	w := Writer{q.At.AppendTo(b)}
	return w.Number(q.Code).Text(q.Reason).Flag(q.Session).B
}

// Read reads the question. The value of the address is borrowed.
func (q *CloseQuestion) Read(r *Reader) {
	q.At.Read(r)
	q.Code, q.Reason, q.Session = r.Number(), string(r.Bytes()), r.Flag()
}

// AttributesChange is a change of a connection's attributes.
//
// Owner: immutable.
type AttributesChange struct {
	Keys    []string // to be set
	Values  [][]byte // of the same length: JSON
	Remove  []string
	Granted bool // they belong to the connection's identity; of this worker, never sent
}

// ChangeOf is a change of attributes. The values are kept.
func ChangeOf(set map[string]json.RawMessage, remove []string) AttributesChange {
	change := AttributesChange{Remove: remove}
	for key, value := range set {
		change.Keys, change.Values = append(change.Keys, key), append(change.Values, value)
	}
	return change
}

// AppendTo writes the change.
func (c AttributesChange) AppendTo(b []byte) []byte {
	w := Writer{b}
	w.Number(uint64(len(c.Keys)))
	for i, key := range c.Keys {
		w.Text(key).Bytes(c.Values[i])
	}
	return w.texts(c.Remove).B
}

// Read reads the change. Its values are borrowed.
func (c *AttributesChange) Read(r *Reader) {
	*c = AttributesChange{}
	for range r.count() {
		c.Keys = append(c.Keys, string(r.Bytes()))
		c.Values = append(c.Values, r.Bytes())
	}
	c.Remove = r.texts()
}
