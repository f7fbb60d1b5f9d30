package ledger

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"

	"github.com/parleyd/parley/protocol/ident"
)

// State is a session's state.
type State uint8

const (
	// Live sessions belong to a connection of their owner.
	Live State = iota + 1
	// Parked sessions have no connection, and wait for a claim.
	Parked
	// claimed sessions were taken by the worker that their record names.
	claimed
)

// Key names a session: the instance that made it, and a hash of its token.
type Key struct {
	Instance ident.Worker
	Hash     [16]byte
}

// subject is the key as part of a subject.
func (k Key) subject() string {
	b := make([]byte, 0, 40)
	b = strconv.AppendUint(b, uint64(k.Instance), 10)
	b = append(b, '.')
	return string(hex.AppendEncode(b, k.Hash[:]))
}

// worker is one process: instances are numbered anew with each start of the server.
type worker struct {
	epoch    int64
	instance ident.Worker
}

// session is a record of sessionBucket.
//
// Owner: immutable once encoded.
type session struct {
	state   State
	before  State  // of a claimed session: its state before
	owner   int64  // the epoch of the instance in its key
	taker   worker // of a claimed session
	expires int64  // in milliseconds since 1970; 0 for a live session
	mark    mark
	value   []byte
}

const (
	sessionVersion = 1
	sessionHeader  = 1 + 1 + 1 + 8 + 8 + 2 + 8 + 16
)

func (s *session) encode() []byte {
	b := make([]byte, 0, sessionHeader+len(s.value))
	b = append(b, sessionVersion, byte(s.state), byte(s.before))
	b = binary.BigEndian.AppendUint64(b, uint64(s.owner))
	b = binary.BigEndian.AppendUint64(b, uint64(s.taker.epoch))
	b = binary.BigEndian.AppendUint16(b, s.taker.instance.Instance())
	b = binary.BigEndian.AppendUint64(b, uint64(s.expires))
	b = append(b, s.mark[:]...)
	return append(b, s.value...)
}

var errRecord = errors.New("decode session: not a record of this version")

func decodeSession(b []byte) (s session, err error) {
	if len(b) < sessionHeader || b[0] != sessionVersion || State(b[1]) < Live || State(b[1]) > claimed {
		return s, errRecord
	}
	s.state, s.before = State(b[1]), State(b[2])
	s.owner = int64(binary.BigEndian.Uint64(b[3:]))
	s.taker.epoch = int64(binary.BigEndian.Uint64(b[11:]))
	s.taker.instance = ident.On(0, binary.BigEndian.Uint16(b[19:]))
	s.expires = int64(binary.BigEndian.Uint64(b[21:]))
	copy(s.mark[:], b[29:])
	s.value = b[sessionHeader:]
	return s, nil
}
