package engine

import (
	"encoding/base64"
	"encoding/binary"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// storedSession is a session of a worker that has ended, as a store keeps it.
func storedSession(worker ident.Worker, principal string, rooms ...string) []byte {
	w := &fleet.Writer{}
	w.Number(1).IDs([]ident.ID{{Worker: worker, Place: ident.Place{Gen: 1}}}).Text(principal).Number(0).Number(0).Number(uint64(len(rooms)))
	for _, room := range rooms {
		w.Text(room)
	}
	return w.Number(0).Number(0).B
}

// storedRooms are the rooms of a session as a store keeps it.
func storedRooms(value []byte) (rooms []string) {
	r := &fleet.Reader{Rest: value}
	r.Number()
	r.IDs()
	r.Bytes()
	r.Number()
	r.Number()
	for n := r.Number(); n > 0 && !r.Bad; n-- {
		rooms = append(rooms, string(r.Bytes()))
	}
	return rooms
}

// tokenOf is a token that a worker might have given.
func tokenOf(worker ident.Worker) string {
	raw := binary.BigEndian.AppendUint16(nil, worker.Instance())
	return base64.RawURLEncoding.EncodeToString(append(append(raw, 1), make([]byte, 15)...))
}
