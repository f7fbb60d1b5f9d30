package message

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"unicode/utf8"
)

// Mismatch is the answer to a message that does not fit the type of its handler. The decoder's own error is for developers,
// and differs between decoders: the client learns which field must have which type. encoding/json finds that out; it runs
// only here, where time does not matter.
func Mismatch(typ string, payload []byte, v any) *Error {
	text := fmt.Sprintf("the fields of %q are not of the kinds that its handler takes", Clip([]byte(typ)))
	if t := reflect.TypeOf(v); t != nil && t.Kind() == reflect.Pointer {
		err := json.Unmarshal(payload, reflect.New(t.Elem()).Interface())
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
			if wanted := wanted(wrong.Type); wanted != "" {
				text = fmt.Sprintf("the field %q of %q must be %s", Clip([]byte(wrong.Field)), Clip([]byte(typ)), wanted)
			}
		}
	}
	return &Error{Code: InvalidMessage.String(), Message: text}
}

// wanted names in JSON's words the values that fit into a type; "" if the type decides itself.
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

// Clip shortens a client's text to a length that fits into a sentence.
func Clip(b []byte) []byte {
	n := min(len(b), 64)
	for n > 0 && n < len(b) && !utf8.RuneStart(b[n]) {
		n--
	}
	return b[:n]
}
