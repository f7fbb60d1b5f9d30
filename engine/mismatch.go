package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"github.com/parleyd/parley/protocol/message"
)

// mismatch is what a client is told whose message does not fit what its handler decodes it into. What the decoder says
// is for whoever writes the server, and differs from decoder to decoder: the client hears which field must be what.
// encoding/json knows; it is asked only here, where time does not matter.
func mismatch(m *Message, v any) *Error {
	text := fmt.Sprintf("the fields of %q are not of the kinds that its handler takes", clip([]byte(m.typ)))
	if t := reflect.TypeOf(v); t != nil && t.Kind() == reflect.Pointer {
		err := json.Unmarshal(m.payload, reflect.New(t.Elem()).Interface())
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
			if wanted := wanted(wrong.Type); wanted != "" {
				text = fmt.Sprintf("the field %q of %q must be %s", clip([]byte(wrong.Field)), clip([]byte(m.typ)), wanted)
			}
		}
	}
	return &Error{Code: message.InvalidMessage.String(), Message: text}
}

// wanted says in JSON's words what fits into a type; "" where the type decides itself.
func wanted(t reflect.Type) string {
	if t == nil || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return ""
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("a whole number of at most %d bits", t.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return fmt.Sprintf("a whole number of at most %d bits, not below 0", t.Bits())
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "an object"
	}
	return ""
}
