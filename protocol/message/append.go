package message

import (
	"strconv"
	"unicode/utf8"
)

// The messages of the server. Every function appends one message to dst. ref is the client's, as JSON; nil if the
// client sent none.

func end(dst, ref []byte) []byte {
	if ref != nil {
		dst = append(append(dst, `,"ref":`...), ref...)
	}
	return append(dst, '}')
}

func number(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }

// AppendConnected greets: the id of the connection, and the time in seconds since the epoch.
func AppendConnected(dst, id []byte, timestamp int64) []byte {
	dst = append(append(dst, `{"type":"connected","connection_id":"`...), id...)
	return append(number(append(dst, `","timestamp":`...), timestamp), '}')
}

// Greeting is the first message to a client.
//
// Owner: the caller.
type Greeting struct {
	ID           []byte
	Timestamp    int64
	AuthRequired bool   // the next message must authenticate
	User         string // of a token that came with the handshake; "" for none
	ExpiresIn    int64  // seconds until that token ends; 0: it has no end
}

// AppendGreeting is AppendConnected for a server whose clients authenticate.
func AppendGreeting(dst []byte, m Greeting) []byte {
	dst = AppendConnected(dst, m.ID, m.Timestamp)
	dst = dst[:len(dst)-1]
	if m.AuthRequired {
		dst = append(dst, `,"auth_required":true`...)
	}
	return append(appendUser(dst, m.User, m.ExpiresIn), '}')
}

// appendUser appends a user, if there is one, and when its token ends.
func appendUser(dst []byte, user string, expiresIn int64) []byte {
	if user == "" {
		return dst
	}
	dst = AppendString(append(dst, `,"user":`...), user)
	if expiresIn > 0 {
		dst = number(append(dst, `,"expires_in":`...), expiresIn)
	}
	return dst
}

// AppendReconnectToken tells the session's token; ttl is the time in seconds by which it outlives the connection.
func AppendReconnectToken(dst []byte, token string, ttl int64) []byte {
	dst = append(append(dst, `{"type":"reconnect_token","token":"`...), token...)
	return append(number(append(dst, `","ttl":`...), ttl), '}')
}

// Joined is the answer to a join.
//
// Owner: the caller.
type Joined struct {
	Room    []byte
	Members int
	Start   // in a room without history, Gap: the client asked for messages that it missed
	Ref     []byte
}

// AppendJoined answers a join.
func AppendJoined(dst []byte, m Joined) []byte {
	dst = AppendString(append(dst, `{"type":"joined","room":`...), m.Room)
	dst = number(append(dst, `,"members":`...), int64(m.Members))
	return end(appendStart(dst, &m.Start), m.Ref)
}

// AppendLeft answers a leave, or tells that the room was deleted.
func AppendLeft(dst, room, ref []byte) []byte {
	return end(AppendString(append(dst, `{"type":"left","room":`...), room), ref)
}

// Broadcast is a message to the members of a room.
//
// Owner: the caller.
type Broadcast struct {
	Room      []byte
	From      []byte // the sender's id
	User      string // the sender's user, as JSON; "" for none
	Data      []byte // JSON, passed through
	Timestamp int64
}

// AppendBroadcast builds the message for the other members of a room.
func AppendBroadcast(dst []byte, m Broadcast) []byte {
	dst = AppendString(append(dst, `{"type":"broadcast","room":`...), m.Room)
	dst = append(append(append(dst, `,"from":"`...), m.From...), '"')
	if m.User != "" {
		dst = append(append(dst, `,"user":`...), m.User...)
	}
	dst = append(append(dst, `,"data":`...), m.Data...)
	return append(number(append(dst, `,"timestamp":`...), m.Timestamp), '}')
}

// BroadcastSent is the answer to a broadcast.
//
// Owner: the caller.
type BroadcastSent struct {
	Room       []byte
	Recipients int
	Delayed    bool // members on other workers get the message later: the bus is away
	Position        // in a room with history, that of the message
	Duplicate  bool // nothing was published: the position is that of the first message with the key
	Ref        []byte
}

// AppendBroadcastSent answers a broadcast.
func AppendBroadcastSent(dst []byte, m BroadcastSent) []byte {
	dst = AppendString(append(dst, `{"type":"broadcast_sent","room":`...), m.Room)
	dst = number(append(dst, `,"recipients":`...), int64(m.Recipients))
	if m.Delayed {
		dst = append(dst, `,"delayed":true`...)
	}
	switch {
	case m.Duplicate:
		dst = append(appendPlace(append(dst, `,"duplicate":{`...), m.Position), '}')
	case m.Epoch != "":
		dst = appendPlace(append(dst, ','), m.Position)
	}
	return end(dst, m.Ref)
}

// AppendPong answers a ping.
func AppendPong(dst []byte, timestamp int64, ref []byte) []byte {
	return end(number(append(dst, `{"type":"pong","timestamp":`...), timestamp), ref)
}

// LostRoom is a room that could not be restored.
type LostRoom struct{ Room, Code string }

// Reconnected is the answer to a reconnect.
//
// Owner: the caller.
type Reconnected struct {
	ID       []byte
	Previous []byte
	Rooms    []string
	Lost     []LostRoom
	Gaps     []string // rooms in which the client may have missed messages
	Restarts []Restart
	Ref      []byte
}

// AppendReconnected answers a reconnect.
func AppendReconnected(dst []byte, m Reconnected) []byte {
	dst = append(append(dst, `{"type":"reconnected","connection_id":"`...), m.ID...)
	dst = append(append(dst, `","previous_connection_id":"`...), m.Previous...)
	dst = appendStrings(append(dst, `","rooms":`...), m.Rooms)
	if len(m.Lost) > 0 {
		dst = append(dst, `,"lost":[`...)
		for i, lost := range m.Lost {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = AppendString(append(dst, `{"room":`...), lost.Room)
			dst = append(append(append(dst, `,"code":"`...), lost.Code...), `"}`...)
		}
		dst = append(dst, ']')
	}
	if len(m.Gaps) > 0 {
		dst = appendStrings(append(dst, `,"gaps":`...), m.Gaps)
	}
	dst = appendRestarts(dst, m.Restarts)
	return end(dst, m.Ref)
}

func appendStrings(dst []byte, list []string) []byte {
	dst = append(dst, '[')
	for i, s := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, s)
	}
	return append(dst, ']')
}

// Notice is a join or a leave, told to the other members of the room.
type Notice struct {
	Room string
	ID   []byte // of the connection that joined or left
	User string // of that connection; "" for none
}

// AppendMemberJoined tells the other members of a join.
func AppendMemberJoined(dst []byte, m Notice) []byte { return appendNotice(dst, "member_joined", m) }

// AppendMemberLeft tells the other members of a leave.
func AppendMemberLeft(dst []byte, m Notice) []byte { return appendNotice(dst, "member_left", m) }

func appendNotice(dst []byte, kind string, m Notice) []byte {
	dst = append(append(append(dst, `{"type":"`...), kind...), `","room":`...)
	dst = append(AppendString(dst, m.Room), `,"connection_id":"`...)
	return append(appendUser(append(append(dst, m.ID...), '"'), m.User, 0), '}')
}

// AppendAnnouncements tells whether a room announces joins and leaves.
func AppendAnnouncements(dst []byte, room string, on bool, members int) []byte {
	dst = AppendString(append(dst, `{"type":"announcements","room":`...), room)
	dst = strconv.AppendBool(append(dst, `,"on":`...), on)
	return append(number(append(dst, `,"members":`...), int64(members)), '}')
}

// Members is the answer to a question for the members of a room.
//
// Owner: the caller.
type Members struct {
	Room  []byte
	Count int
	IDs   []string
	Users []string // of the members, in the order of IDs, "" for none; where it is shorter, the others have none
	Next  []byte   // cursor of the next page; nil: there is none
	// Partial means that a worker with further members did not answer.
	Partial bool
	Ref     []byte
}

// AppendMembers answers a question for the members.
func AppendMembers(dst []byte, m Members) []byte {
	dst = AppendString(append(dst, `{"type":"members","room":`...), m.Room)
	dst = number(append(dst, `,"count":`...), int64(m.Count))
	dst = appendStrings(append(dst, `,"members":`...), m.IDs)
	if len(m.Users) > 0 {
		dst = append(appendUsers(append(dst, `,"users":[`...), m), ']')
	}
	dst = strconv.AppendBool(append(dst, `,"partial":`...), m.Partial || m.Next != nil)
	if m.Next != nil {
		dst = append(append(append(dst, `,"next":"`...), m.Next...), '"')
	}
	return end(dst, m.Ref)
}

func appendUsers(dst []byte, m Members) []byte {
	for i := range m.IDs {
		if i > 0 {
			dst = append(dst, ',')
		}
		if i < len(m.Users) && m.Users[i] != "" {
			dst = AppendString(dst, m.Users[i])
		} else {
			dst = append(dst, "null"...)
		}
	}
	return dst
}

// AppendAuthenticated answers an auth message.
func AppendAuthenticated(dst, ref []byte) []byte {
	return end(append(dst, `{"type":"authenticated"`...), ref)
}

// AppendAuthenticatedAs answers an auth message whose token names a user; expiresIn is in seconds, 0 for a token without an
// end.
func AppendAuthenticatedAs(dst []byte, user string, expiresIn int64, ref []byte) []byte {
	return end(appendUser(append(dst, `{"type":"authenticated"`...), user, expiresIn), ref)
}

// AppendAuthExpiring tells a client that its token ends in a number of seconds.
func AppendAuthExpiring(dst []byte, expiresIn int64) []byte {
	return append(number(append(dst, `{"type":"auth_expiring","expires_in":`...), expiresIn), '}')
}

// AppendGoodbye tells a client that the server closes the connection, and in how many seconds to come back.
func AppendGoodbye(dst []byte, retryAfter int64) []byte {
	return append(number(append(dst, `{"type":"goodbye","retry_after":`...), retryAfter), '}')
}

// AppendSentOut tells a client that it has left a room without having asked for it, and why.
func AppendSentOut(dst []byte, room, code string) []byte {
	dst = AppendString(append(dst, `{"type":"left","room":`...), room)
	return append(AppendString(append(dst, `,"code":`...), code), '}')
}

// AppendError answers a message that is refused.
func AppendError(dst []byte, code, text string, ref []byte) []byte {
	dst = AppendString(append(dst, `{"type":"error","code":`...), code)
	return end(AppendString(append(dst, `,"message":`...), text), ref)
}

// AppendRef puts a ref into an encoded object, in place: the caller must own the object. An object with a ref of its own
// keeps that.
func AppendRef(object, ref []byte) []byte {
	var e Envelope
	if Route(object, &e); e.seen&keyRef != 0 {
		return object
	}
	last := len(object) - 1
	for last > 0 && object[last] != '}' {
		last--
	}
	object = object[:last]
	if skipSpace(object, 1) < len(object) {
		object = append(object, ',')
	}
	object = append(append(object, `"ref":`...), ref...)
	return append(object, '}')
}

// AppendString appends s as a JSON string. Each byte that is not valid UTF-8 becomes U+FFFD.
func AppendString[T []byte | string](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, n := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)])); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		dst = append(dst, s[from:i]...)
		switch {
		case c >= utf8.RuneSelf:
			dst = append(dst, "\ufffd"...)
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}
