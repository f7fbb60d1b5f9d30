package message

import (
	"reflect"

	"github.com/bytedance/sonic"
	"github.com/bytedance/sonic/encoder"
)

// decoding copies strings out of the input, which is borrowed, and checks them for UTF-8 and control characters.
// Keys are compared exactly: encoding/json ignores case, so that two readers could understand one message
// differently.
var decoding = sonic.Config{CopyString: true, ValidateString: true, CaseSensitive: true}.Froze()

const encoding = encoder.SortMapKeys | encoder.NoEncoderNewline | encoder.CompactMarshaler | encoder.ValidateString

// Decode fills v from JSON. payload is borrowed: nothing of v refers to it. Any goroutine.
func Decode(payload []byte, v any) error { return decoding.Unmarshal(payload, v) }

// Encode appends v as JSON, with the keys of maps sorted, so that equal values are equal bytes. If v cannot be encoded, it
// returns dst as it was. Any goroutine.
func Encode(dst []byte, v any) ([]byte, error) {
	out := dst
	if err := encoder.EncodeInto(&out, v, encoding); err != nil {
		return dst, err // not out: sonic leaves a wrong length in it
	}
	return out, nil
}

// Pretouch compiles the decoder of T now, so that the first message does not wait for it.
func Pretouch[T any]() { _ = sonic.Pretouch(reflect.TypeFor[T]()) } // decoding returns the same error
