package message

import (
	"errors"
	"reflect"
)

// Error is a refusal with a code for the client; the connection lives on.
type Error struct {
	Code    string // one of the wire protocol's codes, or one of the application's
	Message string // for a person: the fault and its correction
}

// Error gives both.
func (e *Error) Error() string {
	if e == nil {
		return "no error" // a nil pointer in a chain of errors
	}
	return e.Code + ": " + e.Message
}

// ErrorOf is the refusal with a code of the wire protocol and its text.
func ErrorOf(code Code) *Error { return &Error{Code: code.String(), Message: code.Text()} }

// Refusals that several floors of the engine make, and that callers compare with.
var (
	ErrOverloaded   = ErrorOf(Overloaded)
	ErrUnavailable  = ErrorOf(Unavailable)
	ErrRoomFull     = ErrorOf(RoomFull)
	ErrTooManyRooms = ErrorOf(TooManyRooms)
	ErrNotInRoom    = ErrorOf(NotInRoom)
)

// Coded is the refusal in an error, however often it was wrapped; nil if there is none.
func Coded(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

// CodedOr is the refusal in an error, or one with a code and the error's text.
func CodedOr(code Code, err error) *Error {
	if e := Coded(err); e != nil {
		return e
	}
	return &Error{Code: code.String(), Message: err.Error()}
}

// Refused is the refusal in an error, or [Forbidden], which does not tell the client the error's text.
func Refused(err error) *Error {
	if e := Coded(err); e != nil {
		return e
	}
	return ErrorOf(Forbidden)
}

// IsNone reports whether an error or a reply means none. So does a nil pointer in an interface: a function with a result of
// its own type returns one.
func IsNone(v any) bool {
	if v == nil {
		return true
	}
	switch x := reflect.ValueOf(v); x.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan:
		return x.IsNil()
	}
	return false
}
