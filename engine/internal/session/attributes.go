package session

import (
	"bytes"
	"errors"
	"iter"
	"slices"

	"github.com/parleyd/parley/engine/internal/fanout"
)

// ErrAttributesFull is the error for attributes that would exceed attributes_bytes_max.
var ErrAttributesFull = errors.New("the connection's attributes exceed attributes_bytes_max")

// attributes are encoded when they are set. So a resume restores exactly the earlier values, and any goroutine may read a
// snapshot.
//
// Owner: immutable.
type attributes struct {
	list  []attribute
	bytes int
}

// attribute is one of them.
//
// Owner: immutable.
type attribute struct {
	key   string
	value []byte
	early bool // set before the connection was admitted, by its connect or auth handler
	// granted attributes belong to the connection's identity: a session does not bring them to its heir, which has an
	// identity of its own.
	granted bool
}

// userData is the value of SetUserData.
type userData struct {
	raw   []byte
	early bool // as for an attribute
}

func (a *attributes) all() []attribute {
	if a == nil {
		return nil
	}
	return a.list
}

// lasting are the attributes that outlive the connection.
func (a *attributes) lasting() *attributes {
	if a == nil || !slices.ContainsFunc(a.list, func(x attribute) bool { return x.granted }) {
		return a
	}
	next := &attributes{}
	for _, x := range a.list {
		if !x.granted {
			next.list, next.bytes = append(next.list, x), next.bytes+len(x.key)+len(x.value)
		}
	}
	return next
}

func (a *attributes) find(key string) int {
	if a == nil {
		return -1
	}
	return slices.IndexFunc(a.list, func(x attribute) bool { return x.key == key })
}

// with returns a copy of a with x; a nil value removes x. An attribute that was set early stays early.
func (a *attributes) with(x attribute) *attributes {
	next := &attributes{}
	if a != nil {
		next.list = slices.Clone(a.list)
	}
	i := a.find(x.key)
	switch {
	case i >= 0 && x.value == nil:
		next.list = slices.Delete(next.list, i, i+1)
	case i >= 0:
		next.list[i].value, next.list[i].granted = x.value, x.granted
	case x.value != nil:
		next.list = append(next.list, x)
	}
	for _, x := range next.list {
		next.bytes += len(x.key) + len(x.value)
	}
	return next
}

// inheritAttributes restores a session's attributes and user data. They replace values that were set since the connection
// was admitted, but not values of its connect and auth handlers, which describe the present user. Values that do not fit
// beside those are left out, and dropped counts them.
func (c *Conn) inheritAttributes(state *parked) (dropped int) {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	if state.userData != nil && (c.userData.Load() == nil || !c.userData.Load().early) {
		c.userData.Store(&userData{raw: state.userData.raw})
	}
	own, next := c.attrs.Load(), new(attributes)
	add := func(x attribute) {
		switch n := next.bytes + len(x.key) + len(x.value); {
		case next.find(x.key) >= 0:
		case n > c.loop().Sessions.AttributesBytesMax:
			dropped++
		default:
			next.list, next.bytes = append(next.list, x), n
		}
	}
	for _, x := range own.all() {
		if x.early {
			add(x)
		}
	}
	for _, x := range state.attrs.all() {
		x.early = false
		add(x)
	}
	for _, x := range own.all() {
		add(x)
	}
	if len(next.list) > 0 {
		c.attrs.Store(next)
	}
	return dropped
}

// SetAttribute keeps encoded JSON under a key; a nil value removes it. Any goroutine.
func (c *Conn) SetAttribute(key string, value []byte) error {
	c.Mu.Lock()
	defer c.Mu.Unlock()
	next := c.attrs.Load().with(attribute{key: key, value: value, early: !c.Admitted.Load()})
	if next.bytes > c.loop().Sessions.AttributesBytesMax {
		return ErrAttributesFull
	}
	c.attrs.Store(next)
	c.PostChanged()
	return nil
}

// Attribute returns the JSON kept under a key, nil for none. The caller must not change it. Any goroutine.
func (c *Conn) Attribute(key string) []byte {
	a := c.attrs.Load()
	if i := a.find(key); i >= 0 {
		return slices.Clip(a.list[i].value)
	}
	return nil
}

// Attributes yields all keys and their JSON. Any goroutine.
func (c *Conn) Attributes() iter.Seq2[string, []byte] {
	list := c.attrs.Load().all()
	return func(yield func(string, []byte) bool) {
		for _, x := range list {
			if !yield(x.key, slices.Clip(x.value)) {
				return
			}
		}
	}
}

// HasAttribute reports whether the JSON under a key is value. Any goroutine.
func (c *Conn) HasAttribute(key string, value []byte) bool {
	raw := c.Attribute(key)
	return raw != nil && bytes.Equal(raw, value)
}

// HasAttribute makes a choice of the connections whose attribute of a name has a value.
func HasAttribute(key string, value []byte) func(*fanout.Conn) bool {
	return func(c *fanout.Conn) bool { return ConnOf(c.Wire()).HasAttribute(key, value) }
}

// SetUserData keeps encoded JSON without a key. Any goroutine.
func (c *Conn) SetUserData(raw []byte) error {
	if len(raw) > c.loop().Sessions.AttributesBytesMax {
		return ErrAttributesFull
	}
	c.userData.Store(&userData{raw, !c.Admitted.Load()})
	c.PostChanged()
	return nil
}

// UserData returns the JSON of SetUserData, nil for none. Any goroutine.
func (c *Conn) UserData() []byte {
	if kept := c.userData.Load(); kept != nil {
		return kept.raw
	}
	return nil
}
