package engine

import (
	"errors"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// A session in the store, and in its owner's answer: the fields of parked, encoded as entries are.

const sessionValueVersion = 1

var errSessionValue = errors.New("the stored session is damaged, or of another version")

// encode encodes the state for the store or another worker.
func (p *parked) encode() []byte {
	w := &fleet.Writer{B: make([]byte, 0, 128)}
	w.Number(sessionValueVersion).IDs([]ident.ID{{Worker: p.instance, Place: p.previous}}).Text(p.principal)
	w.Number(uint64(p.attempts)).Number(uint64(p.resumedAtMillis)).Number(uint64(len(p.rooms)))
	for _, name := range p.rooms {
		w.Text(name)
	}
	list := p.attrs.all()
	w.Number(uint64(len(list)))
	for _, x := range list {
		w.Text(x.key).Bytes(x.value)
	}
	if p.userData != nil {
		w.Number(1).Bytes(p.userData.raw)
	} else {
		w.Number(0)
	}
	return w.B
}

// decodeParked is the inverse of encode. The state refers to value.
func decodeParked(value []byte) (*parked, error) {
	r := &fleet.Reader{Rest: value}
	if r.Number() != sessionValueVersion {
		return nil, errSessionValue
	}
	p := &parked{}
	if previous := r.IDs(); previous.Len() == 1 {
		p.instance, p.previous = previous.At(0).Worker, previous.At(0).Place
	} else {
		return nil, errSessionValue
	}
	p.principal = string(r.Bytes())
	p.attempts, p.resumedAtMillis = int(r.Number()), int64(r.Number())
	for range min(r.Number(), uint64(len(r.Rest))) {
		p.rooms = append(p.rooms, string(r.Bytes()))
	}
	for range min(r.Number(), uint64(len(r.Rest))) {
		if p.attrs == nil {
			p.attrs = &attributes{}
		}
		x := attribute{key: string(r.Bytes()), value: r.Bytes()}
		p.attrs.list = append(p.attrs.list, x)
		p.attrs.bytes += len(x.key) + len(x.value)
	}
	if r.Number() == 1 {
		p.userData = &userData{raw: r.Bytes()}
	}
	if r.Bad || len(r.Rest) > 0 {
		return nil, errSessionValue
	}
	return p, nil
}
