package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	"github.com/parleyd/parley/protocol/message"
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

type attribute struct {
	key   string
	value []byte
	early bool // set before the connection was admitted, by its connect or auth handler
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
		next.list[i].value = x.value
	case x.value != nil:
		next.list = append(next.list, x)
	}
	for _, x := range next.list {
		next.bytes += len(x.key) + len(x.value)
	}
	return next
}

// SetAttribute keeps v, encoded as JSON, under key. A resume restores it. nil removes it. A resume overwrites attributes
// that the new connection has set, except those set in its connect and auth handlers, which describe the present user. Any
// goroutine. Errors: v cannot be encoded; [ErrAttributesFull].
func (c *Conn) SetAttribute(key string, v any) error {
	if c == nil {
		return ErrConnectionUnknown
	}
	var value []byte
	if v != nil {
		var err error
		if value, err = message.Encode(nil, v); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.attrs.Load().with(attribute{key, value, !c.admitted.Load()})
	if next.bytes > c.loop().srv.cfg.AttributesBytesMax {
		return ErrAttributesFull
	}
	c.attrs.Store(next)
	c.postChanged()
	return nil
}

// Attribute returns the JSON kept under key, nil for none. The caller must not change it. Any goroutine.
func (c *Conn) Attribute(key string) json.RawMessage {
	if c == nil {
		return nil
	}
	a := c.attrs.Load()
	if i := a.find(key); i >= 0 {
		return slices.Clip(a.list[i].value)
	}
	return nil
}

// Attributes returns all keys and their JSON. Any goroutine.
func (c *Conn) Attributes() map[string]json.RawMessage {
	if c == nil {
		return map[string]json.RawMessage{}
	}
	all := map[string]json.RawMessage{}
	for _, x := range c.attrs.Load().all() {
		all[x.key] = slices.Clip(x.value)
	}
	return all
}

// Attribute returns the value kept under key as a T. ok is false where there is none, or where it is no T:
//
//	id, ok := engine.Attribute[int](c, "user_id")
func Attribute[T any](c *Conn, key string) (value T, ok bool) {
	raw := c.Attribute(key)
	if raw == nil {
		return value, false
	}
	return value, message.Decode(raw, &value) == nil
}

// SetUserData keeps v, encoded as JSON, without a key. A resume restores it. It counts towards attributes_bytes_max alone.
// Any goroutine.
func (c *Conn) SetUserData(v any) error {
	if c == nil {
		return ErrConnectionUnknown
	}
	raw, err := message.Encode(nil, v)
	if err != nil {
		return err
	}
	if len(raw) > c.loop().srv.cfg.AttributesBytesMax {
		return ErrAttributesFull
	}
	c.userData.Store(&userData{raw, !c.admitted.Load()})
	c.postChanged()
	return nil
}

// UserData returns the value of SetUserData, as a T. Any goroutine.
func UserData[T any](c *Conn) (value T, ok bool) {
	if c == nil {
		return value, false
	}
	kept := c.userData.Load()
	if kept == nil {
		return value, false
	}
	return value, message.Decode(kept.raw, &value) == nil
}

// inheritAttributes restores a session's attributes and user data. They replace values that were set since the connection
// was admitted, but not values of its connect and auth handlers, which describe the present user. Values that do not fit
// beside those are left out, and dropped counts them.
func (c *Conn) inheritAttributes(state *parked) (dropped int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state.userData != nil && (c.userData.Load() == nil || !c.userData.Load().early) {
		c.userData.Store(&userData{raw: state.userData.raw})
	}
	own, next := c.attrs.Load(), new(attributes)
	add := func(x attribute) {
		switch n := next.bytes + len(x.key) + len(x.value); {
		case next.find(x.key) >= 0:
		case n > c.loop().srv.cfg.AttributesBytesMax:
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

// hasAttribute reports whether the encoded value under key is value.
func (c *Conn) hasAttribute(key string, value []byte) bool {
	raw := c.Attribute(key)
	return raw != nil && bytes.Equal(raw, value)
}
