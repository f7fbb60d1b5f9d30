package message

import (
	"math"
	"testing"
)

// A value that cannot be encoded leaves the bytes in front of it as they were.
func TestEncodeFails(t *testing.T) {
	cycle := map[string]any{}
	cycle["self"] = cycle
	for _, v := range []any{cycle, make(chan int), math.NaN(), map[string]any{"a": []any{1, math.Inf(1)}}} {
		dst := append(make([]byte, 0, 1000), "front"...)
		if out, err := Encode(dst, v); err == nil || len(out) != 5 || string(out) != "front" {
			t.Errorf("%T: %d bytes, %v", v, len(out), err)
		}
	}
}
