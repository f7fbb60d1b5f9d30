package engine

import (
	"fmt"
	"strings"
	"testing"
)

// Connections that are written to together keep their own bytes, also if one among them has so many frames that it is written to in
// several steps.
func TestGroupKeepsBytesApart(t *testing.T) {
	for _, sends := range []string{"plain", "ring"} {
		w := newScript(t, func(c *Config) { c.Loops, c.Sends = 1, sends })
		var conns []*Conn
		for range 5 {
			conns = append(conns, w.open(0))
			w.read(conns[len(conns)-1])
		}
		pad := strings.Repeat("x", 1000)
		for i, c := range conns {
			n := 3
			if i == 2 {
				n = 100 // a vector takes 64 of them, and the rest is gathered
			}
			for k := range n {
				if err := c.Send(M{"type": fmt.Sprintf("%d-%d", i, k), "pad": pad}); err != nil {
					t.Fatal(err)
				}
			}
		}
		w.drain()
		for i, c := range conns {
			for k, text := range w.read(c) {
				if want := fmt.Sprintf(`"type":"%d-%d"`, i, k); !strings.Contains(text, want) {
					t.Fatalf("%s: connection %d reads %.60s, want %s", sends, i, text, want)
				}
			}
		}
	}
}
