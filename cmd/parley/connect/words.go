package connect

import (
	"bytes"
	"encoding/json"
	"errors"
)

// position is a place in a room with history.
type position struct {
	Seq   uint64 `json:"seq"`
	Epoch string `json:"epoch"`
}

// request is a message to the server.
//
// Owner: the caller.
type request struct {
	Type  string              `json:"type"`
	Room  string              `json:"room,omitempty"`
	To    string              `json:"to,omitempty"`
	Text  string              `json:"text,omitempty"`
	Data  *string             `json:"data,omitempty"`
	Token string              `json:"token,omitempty"`
	Since any                 `json:"since,omitempty"`
	Last  map[string]position `json:"last,omitempty"`
	After string              `json:"after,omitempty"`
	Ref   string              `json:"ref,omitempty"`
}

// newest asks for the newest messages of a room.
type newest struct {
	Last uint64 `json:"last"`
}

// encoded is the request as a text, without the escapes that only pages need.
func (r *request) encoded() []byte {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if e.Encode(r) != nil {
		return nil // none of its types can fail
	}
	return bytes.TrimSuffix(text.Bytes(), []byte{'\n'})
}

// span are numbers of messages.
type span struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// start is where a member begins in a room with history. Its epoch is "" in a room without.
//
// Owner: immutable.
type start struct {
	position
	Until   uint64 `json:"until"`
	Gap     bool   `json:"gap"`
	Missing *span  `json:"missing"`
}

// reply is a message of the server, or one that it passes on. A member of another type than expected is left out.
//
// Owner: immutable.
type reply struct {
	start
	Type      string          `json:"type"`
	Room      *string         `json:"room"`
	Ref       json.RawMessage `json:"ref"`
	From      json.RawMessage `json:"from"` // an id, or, in gap and skip, a number
	User      string          `json:"user"`
	Data      json.RawMessage `json:"data"`
	Text      *string         `json:"text"`
	Timestamp int64           `json:"timestamp"`

	ID           string            `json:"connection_id"`
	AuthRequired bool              `json:"auth_required"`
	ExpiresIn    int64             `json:"expires_in"`
	Token        string            `json:"token"`
	Members      json.RawMessage   `json:"members"` // a number, or a list of ids
	Users        []*string         `json:"users"`
	Count        int               `json:"count"`
	Next         string            `json:"next"`
	Partial      bool              `json:"partial"`
	Recipients   int               `json:"recipients"`
	Delayed      bool              `json:"delayed"`
	Duplicate    *position         `json:"duplicate"`
	Reset        bool              `json:"reset"`
	On           bool              `json:"on"`
	RetryAfter   int64             `json:"retry_after"`
	Code         string            `json:"code"`
	Message      string            `json:"message"`
	Messages     []json.RawMessage `json:"messages"`

	Rooms     []string         `json:"rooms"`
	Positions map[string]start `json:"positions"`
	Gaps      []string         `json:"gaps"`
	MissingIn map[string]span  `json:"-"` // what missing is in reconnected
	Lost      []lost           `json:"lost"`
}

// lost is a room that a session does not get back.
type lost struct {
	Room string `json:"room"`
	Code string `json:"code"`
}

// readReply reads a text. ok is false if it is no JSON object.
func readReply(text []byte) (m reply, ok bool) {
	err := json.Unmarshal(text, &m)
	if err != nil && !errors.As(err, new(*json.UnmarshalTypeError)) {
		return m, false
	}
	if trimmed := bytes.TrimSpace(text); len(trimmed) == 0 || trimmed[0] != '{' {
		return m, false
	}
	if m.Type == "reconnected" {
		var more struct {
			Missing map[string]span `json:"missing"`
		}
		if json.Unmarshal(text, &more) == nil {
			m.MissingIn = more.Missing
		}
		m.Missing = nil
	}
	return m, true
}

// textOf is the value of a JSON string; "" for any other value.
func textOf(raw json.RawMessage) (text string) {
	if json.Unmarshal(raw, &text) != nil {
		return ""
	}
	return text
}

// numberOf is the value of a JSON number that is whole and not negative; 0 for any other value.
func numberOf(raw json.RawMessage) (n uint64) {
	if json.Unmarshal(raw, &n) != nil {
		return 0
	}
	return n
}

// passing reports whether a code is that of a failure that another try may mend.
func passing(code string) bool {
	switch code {
	case "unavailable", "overloaded", "rate_limited", "internal":
		return true
	}
	return false
}
