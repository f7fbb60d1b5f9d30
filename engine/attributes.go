package engine

import (
	"encoding/json"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/engine/internal/session"
	"github.com/parleyd/parley/protocol/message"
)

// ErrAttributesFull is the error for attributes that would exceed attributes_bytes_max.
var ErrAttributesFull = session.ErrAttributesFull

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
	return c.wire.SetAttribute(key, value)
}

// ChangeAttributes removes attributes and sets others to their JSON in one step; if they exceed the bound, it changes nothing. It is
// otherwise as SetAttribute. The values are kept. Any goroutine. Errors: [ErrAttributesFull].
func (c *Conn) ChangeAttributes(set map[string]json.RawMessage, remove []string) error {
	if c == nil {
		return ErrConnectionUnknown
	}
	_, err := c.wire.ChangeAttributes(fleet.ChangeOf(set, remove))
	return err
}

// GrantAttributes is ChangeAttributes, for attributes that belong to the connection's identity, such as those of a token: a
// resume does not restore them, because the new connection has an identity of its own. Any goroutine. Errors: as
// ChangeAttributes.
func (c *Conn) GrantAttributes(set map[string]json.RawMessage, remove []string) error {
	if c == nil {
		return ErrConnectionUnknown
	}
	change := fleet.ChangeOf(set, remove)
	change.Granted = true
	_, err := c.wire.ChangeAttributes(change)
	return err
}

// Attribute returns the JSON kept under key, nil for none. The caller must not change it. Any goroutine.
func (c *Conn) Attribute(key string) json.RawMessage {
	if c == nil {
		return nil
	}
	return c.wire.Attribute(key)
}

// Attributes returns all keys and their JSON. Any goroutine.
func (c *Conn) Attributes() map[string]json.RawMessage {
	if c == nil {
		return map[string]json.RawMessage{}
	}
	all := map[string]json.RawMessage{}
	for key, value := range c.wire.Attributes() {
		all[key] = value
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
	return c.wire.SetUserData(raw)
}

// UserData returns the value of SetUserData, as a T. Any goroutine.
func UserData[T any](c *Conn) (value T, ok bool) {
	if c == nil {
		return value, false
	}
	raw := c.wire.UserData()
	return value, raw != nil && message.Decode(raw, &value) == nil
}
