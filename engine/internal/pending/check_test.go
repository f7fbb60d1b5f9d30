package pending

import (
	"fmt"
	"strings"
	"testing"
)

// A pending answer whose count of bytes differs from its messages is found.
func TestCheckFindsAMiscount(t *testing.T) {
	found := func(p *Pending) (text string) {
		defer func() {
			if v := recover(); v != nil {
				text = fmt.Sprint(v)
			}
		}()
		c := &Conn{Rare: &Rare{Pending: p}}
		c.Check()
		return ""
	}
	if text := found(&Pending{held: []Item{{Payload: []byte("hi")}}, bytes: 2}); !strings.Contains(text, "holds 66 bytes of messages and counts 2") {
		t.Errorf("found %q", text)
	}
	if text := found(&Pending{held: []Item{{Payload: []byte("hi")}}, bytes: 66}); text != "" {
		t.Errorf("nothing is wrong, and found is %q", text)
	}
}
