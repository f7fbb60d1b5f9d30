package message

// Code is the reason for refusing a message. It is deliberately no error: it costs no allocation.
type Code uint8

// Codes of the wire protocol.
const (
	OK Code = iota
	InvalidJSON
	InvalidMessage
	UnknownType
	RoomRequired
	DataRequired
	InvalidRoom
	RoomFull
	TooManyRooms
	NotInRoom
	InvalidToken
	AttemptsExhausted
	AlreadyResumed
	AuthRequired
	Unauthorized
	RateLimited
	Forbidden
	Overloaded
	Unavailable
	Internal
	TokenExpired
	NoHistory
	codes
)

var codeTable = [codes]struct{ name, text string }{
	OK:                {"ok", ""},
	InvalidJSON:       {"invalid_json", "the message is no JSON object"},
	InvalidMessage:    {"invalid_message", "the message is broken JSON, is nested deeper than 64, holds half a surrogate pair, names a key of the envelope twice, has no string as its type, or a ref that is neither an integer nor a string of at most 64 bytes"},
	UnknownType:       {"unknown_type", "there is no handler for messages of this type"},
	RoomRequired:      {"room_required", "the message needs a room"},
	DataRequired:      {"data_required", "the message needs data; null is data, too"},
	InvalidRoom:       {"invalid_room", "a room's name is a string of 1 to 255 bytes without control characters"},
	RoomFull:          {"room_full", "the room has no seat left"},
	TooManyRooms:      {"too_many_rooms", "the connection is in as many rooms as it may be; leave one first"},
	NotInRoom:         {"not_in_room", "the connection is not in this room; join it first"},
	InvalidToken:      {"invalid_token", "the token is unknown, used, too old, or somebody else's"},
	AttemptsExhausted: {"attempts_exhausted", "the session was resumed too often in a row"},
	AlreadyResumed:    {"already_resumed", "the connection has resumed a session already"},
	AuthRequired:      {"auth_required", "authenticate first"},
	Unauthorized:      {"unauthorized", "the token was not accepted"},
	RateLimited:       {"rate_limited", "too many messages; send fewer"},
	Forbidden:         {"forbidden", "this is not allowed"},
	Overloaded:        {"overloaded", "the server is overloaded and has sent nothing; try again"},
	Unavailable:       {"unavailable", "a part of the server did not answer; try again"},
	Internal:          {"internal", "the server failed to handle the message"},
	TokenExpired:      {"token_expired", "the token has expired; fetch another"},
	NoHistory:         {"no_history", "this room keeps no history"},
}

// String is the code on the wire.
func (c Code) String() string { return codeTable[c].name }

// Text explains the code to a person.
func (c Code) Text() string { return codeTable[c].text }
