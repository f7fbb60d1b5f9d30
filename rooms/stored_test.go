package rooms

import (
	"testing"
	"time"
	"unsafe"
)

// A kept message has its frame and its time in 32 bytes: also the largest frame, and one from before the clock began.
func TestStored(t *testing.T) {
	if size := unsafe.Sizeof(Stored{}); size != 32 {
		t.Errorf("a kept message takes %d bytes beyond its frame", size)
	}
	for _, frame := range [][]byte{nil, []byte("x"), make([]byte, 64<<20+14)} {
		for _, at := range []time.Duration{0, time.Millisecond, 400 * 24 * time.Hour, -5 * time.Minute, -400 * 24 * time.Hour} {
			s := stored(&NumberedMessage{Now: int64(at), By: 7}, frame)
			if time.Duration(s.At()) != at || len(s.Frame()) != len(frame) || s.size() != len(frame) || len(frame) > 0 && &s.Frame()[0] != &frame[0] {
				t.Errorf("%d bytes, published at %v: %d bytes at %v", len(frame), at, len(s.Frame()), time.Duration(s.At()))
			}
		}
	}
}
