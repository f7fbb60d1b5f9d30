package session

import (
	"errors"
	"math"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
)

// A session in the store, and in its owner's answer: the fields of parked, encoded as entries are.

// A session that has not been resumed is written in version 1, which programs of before the lineage read.
const (
	sessionValueVersion = 1
	withLineage         = 2 // the lineage stands behind the last field of version 1
	withPlaces          = 3 // the places in rooms with history stand behind the lineage, whose generation may be 0
)

var errSessionValue = errors.New("the stored session is damaged, or of another version")

// encode encodes the state for the store or another worker.
func (p *parked) encode() []byte {
	w := &fleet.Writer{B: make([]byte, 0, 128)}
	version := uint64(sessionValueVersion)
	if p.line.generation > 0 {
		version = withLineage
	}
	if len(p.places)+len(p.earlier) > 0 {
		version = withPlaces
	}
	w.Number(version).IDs([]ident.ID{{Worker: p.instance, Place: p.previous}}).Text(p.principal)
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
	if version >= withLineage {
		w.IDs([]ident.ID{p.line.began}).Number(uint64(p.line.generation))
	}
	if version == withPlaces {
		p.appendPlaces(w)
	}
	return w.B
}

// decodeParked is the inverse of encode. The state refers to value.
func decodeParked(value []byte) (*parked, error) {
	r := &fleet.Reader{Rest: value}
	version := r.Number()
	if version < sessionValueVersion || version > withPlaces {
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
	if version >= withLineage {
		p.readLineage(r, version == withPlaces)
	}
	if version == withPlaces {
		p.readPlaces(r)
	}
	if r.Bad || len(r.Rest) > 0 {
		return nil, errSessionValue
	}
	return p, nil
}

// readLineage reads the fields of version 2. none says that there may be no lineage.
func (p *parked) readLineage(r *fleet.Reader, none bool) {
	began, generation := r.IDs(), r.Number()
	if r.Bad || began.Len() != 1 || generation == 0 && !none || generation > math.MaxUint32 {
		r.Bad = true
		return
	}
	p.line = lineage{began.At(0), uint32(generation)}
}
