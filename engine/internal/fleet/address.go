package fleet

import "github.com/parleyd/parley/protocol/ident"

// Address names the connections, on all workers, that a message is for. Exactly one of the first five fields is set.
//
// Owner: the goroutine that made it.
type Address struct {
	Everybody   bool       // all open connections
	Rooms       []string   // the members of any of these, once each
	Users       []string   // the connections of these users
	Conns       []ident.ID // these
	Key         string     // those whose attribute of this name has Value, compared as JSON
	Value       []byte
	Except      []ident.ID
	ExceptUsers []string
	Ephemeral   bool // rooms with history neither number the message nor keep it
}

// The first number of an address: bits.
const (
	everybody = 1 << iota
	ephemeral
)

// AppendTo writes the address.
func (a *Address) AppendTo(b []byte) []byte {
	bits := uint64(0)
	switch {
	case a.Everybody:
		bits = everybody
	case a.Ephemeral:
		bits = ephemeral
	}
	w := Writer{b}
	w.Number(bits).texts(a.Rooms).texts(a.Users).IDs(a.Conns).Text(a.Key).Bytes(a.Value)
	return w.IDs(a.Except).texts(a.ExceptUsers).B
}

// Read reads the address. Its value is borrowed; its other fields are not.
func (a *Address) Read(r *Reader) {
	bits := r.Number()
	*a = Address{Everybody: bits == everybody, Ephemeral: bits == ephemeral, Rooms: r.texts(), Users: r.texts(), Conns: r.IDs().all(),
		Key: string(r.Bytes()), Value: r.Bytes(), Except: r.IDs().all(), ExceptUsers: r.texts()}
}

func (w *Writer) texts(list []string) *Writer {
	w.Number(uint64(len(list)))
	for _, text := range list {
		w.Text(text)
	}
	return w
}

func (r *Reader) texts() (list []string) {
	for range r.count() {
		list = append(list, string(r.Bytes()))
	}
	return list
}

// count reads the number of parts that follow, of at least one byte each.
func (r *Reader) count() uint64 {
	n := r.Number()
	if n > uint64(len(r.Rest)) {
		r.fail()
		return 0
	}
	return n
}

// all copies the list.
func (l IDs) all() (list []ident.ID) {
	for i := range l.Len() {
		list = append(list, l.At(i))
	}
	return list
}
