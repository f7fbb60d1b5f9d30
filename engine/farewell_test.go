package engine

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// A close code that must not be on the wire becomes 1011 [RFC 6455 §7.4], a reason is UTF-8 and fits into the frame, and
// the log tells the application of its mistake: with CloseWith, in a connect handler, and with Refuse.
func TestFarewells(t *testing.T) {
	const internal = ws.StatusInternalServerError
	for _, row := range []struct {
		code   ws.StatusCode
		reason string
		want   ws.StatusCode
		told   string
		fault  bool
	}{
		{1000, "bye", 1000, "bye", false},
		{1001, "", 1001, "", false},
		{1008, "no", 1008, "no", false},
		{1013, "later", 1013, "later", false},
		{3000, "", 3000, "", false},
		{4999, "ende", 4999, "ende", false},
		{4009, strings.Repeat("x", 123), 4009, strings.Repeat("x", 123), false},
		{1, "", internal, "", true},
		{999, "", internal, "", true},
		{1004, "a", internal, "a", true},
		{1005, "b", internal, "b", true},
		{1006, "", internal, "", true},
		{1015, "", internal, "", true},
		{1016, "", internal, "", true},
		{2999, "", internal, "", true},
		{5000, "", internal, "", true},
		{65535, "", internal, "", true},
		{4009, "a\xffb", 4009, "a\uFFFDb", true},
		{4009, strings.Repeat("\xff", 60), 4009, "\uFFFD", true},
		{4009, strings.Repeat("ä", 100), 4009, strings.Repeat("ä", 61), true},
	} {
		for way, begin := range map[string]func(*script) *Conn{
			"CloseWith": func(w *script) *Conn {
				c := w.open(0)
				w.read(c)
				c.CloseWith(row.code, row.reason)
				return c
			},
			"CloseWith in a connect handler": func(w *script) *Conn {
				w.server.Server.OnConnect(func(c *Conn, _ *Request) error { c.CloseWith(row.code, row.reason); return nil })
				return w.open(0)
			},
			"Refuse": func(w *script) *Conn {
				w.server.Server.OnConnect(func(*Conn, *Request) error { return Refuse(row.code, row.reason) })
				return w.open(0)
			},
		} {
			w := newScript(t, nil)
			var log strings.Builder
			w.server.Server.ground.Log = slog.New(slog.NewTextHandler(&log, nil))
			c := begin(w)
			w.drain()
			raw := w.out[int(c.wire.Fd)].Bytes()
			if at := strings.Index(string(raw), "\r\n\r\n"); at >= 0 {
				raw = raw[at+4:]
			}
			if goodbye := bytes.HasPrefix(raw, []byte("\x81\x22"+`{"type":"goodbye","retry_after":`)); goodbye {
				raw = raw[2+0x22:]
			}
			if len(raw) < 4 || raw[0] != 0x88 {
				t.Errorf("%s %d %q: no close frame in %q", way, row.code, row.reason, raw)
				continue
			}
			code, told := ws.StatusCode(raw[2])<<8|ws.StatusCode(raw[3]), string(raw[4:2+raw[1]])
			if code != row.want || told != row.told || !utf8.ValidString(told) {
				t.Errorf("%s %d %q: the peer is told %d %q, want %d %q", way, row.code, row.reason, code, told, row.want, row.told)
			}
			if (log.Len() > 0) != row.fault {
				t.Errorf("%s %d %q: the log says %q", way, row.code, row.reason, log.String())
			}
		}
	}
	w := newScript(t, nil)
	c := w.open(0)
	w.read(c)
	c.CloseWith(0, "")
	w.drain()
	w.expect(c, "close 1011")
}
