package engine

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"

	"github.com/parleyd/parley/protocol/message"
)

// ErrAttributesFull says that a connection's attributes would exceed attributes_bytes_max.
var ErrAttributesFull = errors.New("the connection's attributes exceed attributes_bytes_max")

// attributes are encoded when set, so that what survives a resume is what was there before, and read from
// a snapshot by any goroutine.
//
// Owner: immutable.
type attributes struct {
	list  []attribute
	bytes int
}

type attribute struct {
	key   string
	value []byte
}

func (a *attributes) find(key string) int {
	if a == nil {
		return -1
	}
	return slices.IndexFunc(a.list, func(x attribute) bool { return x.key == key })
}

// with returns a copy in which key has value; a nil value removes it.
func (a *attributes) with(key string, value []byte) *attributes {
	next := &attributes{}
	if a != nil {
		next.list = slices.Clone(a.list)
	}
	i := a.find(key)
	switch {
	case i >= 0 && value == nil:
		next.list = slices.Delete(next.list, i, i+1)
	case i >= 0:
		next.list[i].value = value
	case value != nil:
		next.list = append(next.list, attribute{key, value})
	}
	for _, x := range next.list {
		next.bytes += len(x.key) + len(x.value)
	}
	return next
}

// SetAttribute keeps v, encoded as JSON, under key; it survives a resume. nil removes it. Any goroutine.
// Errors: v cannot be encoded; [ErrAttributesFull].
func (c *Conn) SetAttribute(key string, v any) error {
	var value []byte
	if v != nil {
		var err error
		if value, err = message.Encode(nil, v); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.attrs.Load().with(key, value)
	if next.bytes > c.loop.srv.cfg.AttributesBytesMax {
		return ErrAttributesFull
	}
	c.attrs.Store(next)
	c.postChanged()
	return nil
}

// Attribute returns the JSON kept under key, nil for none. Not to be changed. Any goroutine.
func (c *Conn) Attribute(key string) json.RawMessage {
	a := c.attrs.Load()
	if i := a.find(key); i >= 0 {
		return slices.Clip(a.list[i].value)
	}
	return nil
}

// Attributes returns all keys and their JSON. Any goroutine.
func (c *Conn) Attributes() map[string]json.RawMessage {
	all := map[string]json.RawMessage{}
	if a := c.attrs.Load(); a != nil {
		for _, x := range a.list {
			all[x.key] = slices.Clip(x.value)
		}
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

// SetUserData keeps v, encoded as JSON: the one thing of an application's own that needs no key. It
// survives a resume and counts towards attributes_bytes_max alone. Any goroutine.
func (c *Conn) SetUserData(v any) error {
	raw, err := message.Encode(nil, v)
	if err != nil {
		return err
	}
	if len(raw) > c.loop.srv.cfg.AttributesBytesMax {
		return ErrAttributesFull
	}
	c.userData.Store(&raw)
	c.postChanged()
	return nil
}

// UserData returns what SetUserData kept, as a T. Any goroutine.
func UserData[T any](c *Conn) (value T, ok bool) {
	raw := c.userData.Load()
	if raw == nil {
		return value, false
	}
	return value, message.Decode(*raw, &value) == nil
}

// inheritAttributes restores a session's attributes; they win over what was set since.
func (c *Conn) inheritAttributes(state *parked) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state.attrs != nil {
		next := c.attrs.Load()
		for _, x := range state.attrs.list {
			next = next.with(x.key, x.value)
		}
		if next.bytes > c.loop.srv.cfg.AttributesBytesMax {
			next = state.attrs
		}
		c.attrs.Store(next)
	}
	if state.userData != nil {
		c.userData.Store(state.userData)
	}
}

// hasAttribute reports whether the encoded value under key is value.
func (c *Conn) hasAttribute(key string, value []byte) bool {
	raw := c.Attribute(key)
	return raw != nil && bytes.Equal(raw, value)
}
