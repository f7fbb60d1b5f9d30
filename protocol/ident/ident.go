// Package ident names workers and connections. A connection's id contains the place where the connection lives: every
// worker finds it by arithmetic and needs no table.
//
// What it refuses to do: telling whether a worker lives or a connection is open; a name may outlive both.
//
// Start reading at [ID], then [Worker].
package ident

import (
	"encoding/binary"
	"encoding/hex"
)

// Worker names one start of a worker process among all workers of a server. It consists of a node, the machine, and
// an instance, which is new for each start of a worker on that node; every worker of one machine is on node 0. The
// zero Worker names no worker. Workers are ordered by node and then by instance.
type Worker uint32

// On names the worker with an instance on a node.
func On(node, instance uint16) Worker { return Worker(node)<<16 | Worker(instance) }

// Node is the machine that the worker runs on.
func (w Worker) Node() uint16 { return uint16(w >> 16) }

// Instance tells the worker from all others on its node.
func (w Worker) Instance() uint16 { return uint16(w) }

// Place is where a connection lives on its worker: its loop, its slot there, and a generation that tells it from earlier
// and later connections in the slot. No connection has the zero Place: generations start at 1.
type Place struct {
	Loop uint8
	Slot uint32
	Gen  uint64
}

const (
	// SlotsMax is the most slots that a loop may have: a slot has 24 bits in an id.
	SlotsMax = 1 << 24
	// GenMax is the highest generation: it has 48 bits in an id.
	GenMax = 1<<48 - 1
	// TextBytes is the length of an id as text: instance (16 bits), loop (8), slot (24) and generation (48), in hexadecimal.
	TextBytes = 24
)

// ID names a connection of any worker.
type ID struct {
	Worker Worker
	Place  Place
}

// Append appends the id as clients know it.
func (id ID) Append(dst []byte) []byte {
	var raw [TextBytes / 2]byte
	binary.BigEndian.PutUint16(raw[0:], id.Worker.Instance())
	binary.BigEndian.PutUint32(raw[2:], uint32(id.Place.Loop)<<24|id.Place.Slot)
	binary.BigEndian.PutUint16(raw[6:], uint16(id.Place.Gen>>32))
	binary.BigEndian.PutUint32(raw[8:], uint32(id.Place.Gen))
	return hex.AppendEncode(dst, raw[:])
}

// String is the id as clients know it.
func (id ID) String() string { return string(id.Append(nil)) }

// Parse is the inverse of [ID.Append]; ok is false if text is no id.
func Parse(text string) (id ID, ok bool) {
	var raw [TextBytes / 2]byte
	if len(text) != TextBytes {
		return id, false
	}
	if n, err := hex.Decode(raw[:], []byte(text)); err != nil || n != len(raw) {
		return id, false
	}
	where := binary.BigEndian.Uint32(raw[2:])
	id.Worker = On(0, binary.BigEndian.Uint16(raw[0:]))
	id.Place = Place{
		Loop: uint8(where >> 24),
		Slot: where & (SlotsMax - 1),
		Gen:  uint64(binary.BigEndian.Uint16(raw[6:]))<<32 | uint64(binary.BigEndian.Uint32(raw[8:])),
	}
	return id, true
}
