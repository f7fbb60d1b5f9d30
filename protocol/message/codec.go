package message

import (
	"reflect"

	"github.com/bytedance/sonic"
	"github.com/bytedance/sonic/encoder"
)

// decoding copies strings out of the input, which is borrowed, and holds them against UTF-8 and the rules
// for control characters. Keys are compared exactly: Go's own looseness would let one message mean two
// things to two readers.
var decoding = sonic.Config{CopyString: true, ValidateString: true, CaseSensitive: true}.Froze()

const encoding = encoder.SortMapKeys | encoder.NoEncoderNewline | encoder.CompactMarshaler | encoder.ValidateString

// Decode fills v from JSON. payload is borrowed: nothing of v refers to it. Any goroutine.
func Decode(payload []byte, v any) error { return decoding.Unmarshal(payload, v) }

// Encode appends v as JSON, with the keys of maps sorted, so that equal values are equal bytes. Where v cannot be encoded it
// returns dst as it was. Any goroutine.
func Encode(dst []byte, v any) ([]byte, error) {
	out := dst
	if err := encoder.EncodeInto(&out, v, encoding); err != nil {
		return dst, err // out is of no use: sonic leaves a length in it that is none
	}
	return out, nil
}

// Pretouch compiles the decoder of T now, so that the first message does not wait for it.
func Pretouch[T any]() { _ = sonic.Pretouch(reflect.TypeFor[T]()) } // an error shows again when decoding
