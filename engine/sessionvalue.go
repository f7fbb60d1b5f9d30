package engine

import (
	"errors"

	"github.com/parleyd/parley/protocol/ident"
)

// A session as the store keeps it, and as its owner hands it over: the fields of parked, in the way of entries.

const sessionValueVersion = 1

var errSessionValue = errors.New("the stored session is damaged, or of another version")

// encode writes the state for another worker, or for later.
func (p *parked) encode() []byte {
	w := &entryWriter{buf: make([]byte, 0, 128)}
	w.number(sessionValueVersion).places([]ident.ID{{Worker: p.instance, Place: p.previous}}).text(p.principal)
	w.number(uint64(p.attempts)).number(uint64(p.resumedAt)).number(uint64(len(p.rooms)))
	for _, name := range p.rooms {
		w.text(name)
	}
	list := p.attrs.all()
	w.number(uint64(len(list)))
	for _, x := range list {
		w.text(x.key).bytes(x.value)
	}
	if p.userData != nil {
		w.number(1).bytes(p.userData.raw)
	} else {
		w.number(0)
	}
	return w.buf
}

// decodeParked is the inverse of encode. The state refers to value.
func decodeParked(value []byte) (*parked, error) {
	r := &entryReader{rest: value}
	if r.number() != sessionValueVersion {
		return nil, errSessionValue
	}
	p := &parked{}
	p.instance, p.previous = r.place()
	p.principal = string(r.bytes())
	p.attempts, p.resumedAt = int(r.number()), int64(r.number())
	for range min(r.number(), uint64(len(r.rest))) {
		p.rooms = append(p.rooms, string(r.bytes()))
	}
	for range min(r.number(), uint64(len(r.rest))) {
		if p.attrs == nil {
			p.attrs = &attributes{}
		}
		x := attribute{key: string(r.bytes()), value: r.bytes()}
		p.attrs.list = append(p.attrs.list, x)
		p.attrs.bytes += len(x.key) + len(x.value)
	}
	if r.number() == 1 {
		p.userData = &userData{raw: r.bytes()}
	}
	if r.bad || len(r.rest) > 0 {
		return nil, errSessionValue
	}
	return p, nil
}

// place reads a list of one, of any worker.
func (r *entryReader) place() (worker ident.Worker, p place) {
	if r.number() != 1 || len(r.rest) < placeBytes {
		r.rest, r.bad = nil, true
		return 0, p
	}
	worker, p = readPlace(r.rest)
	r.rest = r.rest[placeBytes:]
	return worker, p
}
