package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// socketOf opens a socket with a key.
func (w *world) socketOf(key string) *client {
	w.t.Helper()
	dialer := ws.Dialer{Timeout: patient, Header: ws.HandshakeHeaderHTTP{"Authorization": {"Bearer " + key}}}
	conn, br, _, err := dialer.Dial(w.t.Context(), "ws://"+w.addr+"/v1/socket")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	if br == nil {
		br = bufio.NewReader(conn)
	}
	return &client{t: w.t, conn: conn, in: br}
}

func (c *client) say(text string) {
	c.t.Helper()
	if err := wsutil.WriteClientText(c.conn, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// Messages are what requests are: each gets its result or its problem, with its ref.
func TestSocket(t *testing.T) {
	w := start(t)
	member := w.dialAs("ann", "7", "a")
	k := w.socketOf(w.all)
	for _, row := range [][2]string{
		{`{"do":"publish","ref":1,"room":"a","data":1}`, `{"ref":1,"result":{}}`},
		{`{"ref":"\u00e4\"","do":"publish","user":"ann","message":{"type":"x"},"count":true}`, `{"ref":"\u00e4\"","result":{"recipients":1}}`},
		{`{"do":"publish","room":"nowhere","data":1}`, `{"result":{}}`},
		{`{"do":"users","ref":9007199254740993,"user":["ann","bob"]}`, `{"ref":9007199254740993,"result":{"users":[{"user":"ann","connections":1},{"user":"bob","connections":0}]}}`},
		{`{"do":"members","ref":{"a":[1]},"room":"nowhere","limit":5}`, `{"ref":{"a":[1]},"result":{"members":[],"count":0}}`},
		{`{"do":"rooms/create","ref":null,"room":"made"}`, `{"ref":null,"result":{}}`},
		{`{"do":"batch","ref":2,"operations":[{"do":"publish","room":"a","data":2},{"do":"join","user":"bob","room":"a"}]}`, `{"ref":2,"result":{"results":[{},{"joined":0}]}}`},
		{`{"do":"disconnect","ref":3,"user":"bob"}`, `{"ref":3,"result":{"closed":0}}`},
	} {
		k.say(row[0])
		if got := k.next(); got != row[1] {
			t.Errorf("%s: %s", row[0], got)
		}
	}
	for text, says := range map[string]string{
		``: "the body is empty", ` `: "the body is empty", `xyz`: "at byte 1: invalid character", `{"room":"a"`: "at byte 11: unexpected end", ` [1]`: "not an array", `{"do":"publish"`: "one JSON object", `{"do":"publish"}`: "name the receivers", `{"ref":1}`: "name the operation", `{"do":"health"}`: "no operation", `{"do":"socket"}`: "no operation", `{"do":1}`: "give a string",
		`{"do":"rooms","limit":"5"}`: `"/limit"`, `{"do":"rooms","after":"x"}`: `"/after"`, `{"do":"publish","do":"publish"}`: "twice", `{"do":"users","ref":1,"ref":2}`: "twice", `{"do":"publish","rom":"a"}`: `did you mean \"room\"?`,
		`{"do":"room","room":"nowhere"}`: "not_found", `{"do":"watch"}`: `"/what"`, `{"do":"watch","what":"events"}`: "give stats", `{"do":"watch","what":"stats","every":"1ms"}`: "from 1s to 1h", `{"do":"watch","what":"stats","every":"x"}`: "from 1s to 1h",
		`{"do":"rooms","ref":"` + strings.Repeat("r", refBytesMax) + `"}`: "at most 128", `{"do":"join","connection":"` + strings.Repeat("x", envelopeBytes+refBytesMax) + `"}`: "too_large",
	} {
		k.say(text)
		if got := k.next(); !strings.Contains(got, `"problem":{"type":"urn:parley:`) || !strings.Contains(got, says) {
			t.Errorf("%s: %s", clip([]byte(text)), got)
		}
	}
	for _, want := range []string{`"data":1`, `{"type":"x"}`, `"data":2`} {
		if got := member.next(); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// Messages are carried out in their order, also those that are sent without waiting; answers come in that order, too.
func TestSocketOrder(t *testing.T) {
	const n = 20_000 // more than may be unanswered
	w := start(t)
	member, k := w.dial("a"), w.socketOf(w.all)
	wrote := make(chan error, 1)
	go func() {
		out := bufio.NewWriter(k.conn)
		for i := range n {
			if err := wsutil.WriteClientText(out, fmt.Appendf(nil, `{"do":"publish","ref":%d,"room":"a","message":{"type":"x","n":%d}}`, i, i)); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- out.Flush()
	}()
	heard := make(chan bool)
	go func() {
		defer close(heard)
		for i := range n {
			if got, want := member.next(), fmt.Sprintf(`{"type":"x","n":%d}`, i); got != want {
				t.Errorf("got %s, want %s", got, want)
				return
			}
		}
	}()
	for i := range n {
		if got, want := k.next(), fmt.Sprintf(`{"ref":%d,"result":{}}`, i); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	<-heard
}

// A watch sends figures until unwatch; it needs the scope.
func TestWatch(t *testing.T) {
	publisher, entry := makeKey(t, "publisher", "publish")
	w := start(t, entry)
	k := w.socketOf(w.all)
	k.say(`{"do":"watch","ref":1,"what":"stats","every":"1s"}`)
	for figures := 0; figures < 2; {
		if got := k.next(); strings.HasPrefix(got, `{"stats":{"connections":0,`) {
			figures++
		} else if got != `{"ref":1,"result":{}}` {
			t.Error(got)
		}
	}
	k.say(`{"do":"unwatch","ref":2,"what":"stats"}`)
	for got := ""; got != `{"ref":2,"result":{}}`; {
		got = k.next()
	}
	other := w.socketOf(publisher)
	other.say(`{"do":"watch","what":"stats"}`)
	if got := other.next(); !strings.Contains(got, "forbidden") {
		t.Error(got)
	}
	other.say(`{"do":"stats"}`)
	if got := other.next(); !strings.Contains(got, "forbidden") {
		t.Error(got)
	}
}

// A socket whose peer breaks the protocol, or whose key is gone, is closed with the reason; a ping is answered.
func TestSocketEnds(t *testing.T) {
	text, entry := makeKey(t, "gone", "publish")
	w := start(t, entry)
	whole := func(op ws.OpCode, payload []byte) []byte {
		return ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(op, true, payload)))
	}
	unmasked := ws.MustCompileFrame(ws.NewTextFrame([]byte("{}")))
	huge, _ := ws.CompileFrame(ws.MaskFrame(ws.NewTextFrame(make([]byte, 16))))
	huge = append([]byte{huge[0], 0xff, 0, 0, 0, 1, 0, 0, 0, 0}, huge[2:]...)
	negative := append([]byte{huge[0], 0xff, 0x80}, huge[3:]...)
	for name, row := range map[string]struct {
		send []byte
		code ws.StatusCode
	}{
		"binary": {whole(ws.OpBinary, []byte("{}")), 1003}, "no UTF-8": {whole(ws.OpText, []byte{0xff}), 1007}, "no mask": {unmasked, 1002}, "too large": {huge, 1009},
		"close": {whole(ws.OpClose, ws.NewCloseFrameBody(1000, "")), 1000}, "reserved": {whole(0xb, nil), 1002}, "a length below zero": {negative, 1002},
	} {
		k := w.socketOf(w.all)
		k.conn.Write(whole(ws.OpPing, []byte("p")))
		k.conn.SetReadDeadline(time.Now().Add(patient))
		if f, err := ws.ReadFrame(k.in); err != nil || f.Header.OpCode != ws.OpPong || string(f.Payload) != "p" {
			t.Errorf("%v %v", f, err)
		}
		k.conn.Write(row.send)
		f, err := ws.ReadFrame(k.in)
		if err != nil || f.Header.OpCode != ws.OpClose {
			t.Errorf("%s: %v %v", name, f, err)
			continue
		}
		if code, reason := ws.ParseCloseFrameData(f.Payload); code != row.code {
			t.Errorf("%s: %d %s", name, code, reason)
		}
	}
	k := w.socketOf(text)
	k.say(`{"do":"publish","room":"a","data":1}`)
	if got := k.next(); got != `{"result":{}}` {
		t.Error(got)
	}
	w.api.SetKeys(nil)
	k.say(`{"do":"publish","room":"a","data":1}`)
	k.closes(1008)
	eventually(t, "no socket is left", func() bool { return len(w.api.sockets.places) == 0 })
}

// What is no upgrade, or has no key, gets a problem; more sockets than there are places are refused.
func TestSocketIsRefused(t *testing.T) {
	w := startWith(t, func(s *Server) { s.sockets.places = make(chan struct{}, 1) })
	w.refused(w.request(http.MethodGet, "/v1/socket", ""), invalidRequest)
	w.socketOf(w.all)
	w.refused(w.handshake(), overloaded)
	_, _, _, err := ws.Dialer{Timeout: patient}.Dial(t.Context(), "ws://"+w.addr+"/v1/socket")
	if status := ws.StatusError(0); !errors.As(err, &status) || status != http.StatusUnauthorized {
		t.Error(err)
	}
}

// handshake is a good opening handshake for the socket.
func (w *world) handshake() *http.Request {
	w.t.Helper()
	r := w.request(http.MethodGet, "/v1/socket", "")
	for name, value := range map[string]string{"Upgrade": "websocket", "Connection": "keep-alive, Upgrade", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
		r.Header.Set(name, value)
	}
	return r
}

// A handshake that cannot be taken gets a problem document, as any request does.
func TestSocketHandshakes(t *testing.T) {
	w := start(t)
	for name, row := range map[string]struct{ field, value, says string }{
		"no upgrade":       {"Connection", "keep-alive", "ask for an upgrade"},
		"another protocol": {"Upgrade", "h2c", "ask for an upgrade"},
		"another version":  {"Sec-WebSocket-Version", "8", "Sec-WebSocket-Version"},
		"no version":       {"Sec-WebSocket-Version", "", "Sec-WebSocket-Version"},
		"a short key":      {"Sec-WebSocket-Key", "dGhlIHNhbXBsZQ==", "Sec-WebSocket-Key"},
		"no key":           {"Sec-WebSocket-Key", "", "Sec-WebSocket-Key"},
	} {
		r := w.handshake()
		r.Header.Set(row.field, row.value)
		if p := w.refused(r, invalidRequest); !strings.Contains(p.Detail, row.says) {
			t.Errorf("%s: %s", name, p.Detail)
		}
	}
	r := w.handshake()
	r.Method = http.MethodHead
	if resp, body := w.send(r); resp.StatusCode != 400 || body != "" {
		t.Error(resp.StatusCode, body)
	}
}

// A backend that does not read its answers is not read, and is cut after the time for one chunk. Others are served meanwhile.
func TestSocketIsNotRead(t *testing.T) {
	w := startWith(t, func(s *Server) { s.lineTimeout = 300 * time.Millisecond })
	w.makeRooms(1000, 2000)
	k, other := w.socketOf(w.all), w.socketOf(w.all)
	if err := k.conn.(*net.TCPConn).SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for {
			k.conn.SetWriteDeadline(time.Now().Add(patient))
			if err := wsutil.WriteClientText(k.conn, []byte(`{"do":"rooms","limit":1000}`)); err != nil {
				ended <- err
				return
			}
		}
	}()
	for served := false; !served; {
		other.say(`{"do":"publish","room":"a","data":1}`)
		if got := other.next(); got != `{"result":{}}` {
			t.Error(got)
		}
		select {
		case err := <-ended:
			if served = true; errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		default:
		}
	}
	eventually(t, "the place is free", func() bool { return len(w.api.sockets.places) == 1 })
}

// The end of the server closes sockets with 1001, and waits for them.
func TestSocketAtShutdown(t *testing.T) {
	w := start(t)
	k := w.socketOf(w.all)
	k.say(`{"do":"watch","what":"stats"}`)
	if got := k.next(); got != `{"result":{}}` && !strings.HasPrefix(got, `{"stats"`) {
		t.Error(got)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.api.Shutdown(context.WithoutCancel(t.Context())) }()
	k.closes(1001)
	if _, err := io.ReadAll(k.conn); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Log(err) // a reset is an end, too
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func BenchmarkSocket(b *testing.B) {
	w := start(b)
	w.dial("a")
	k := w.socketOf(w.all)
	text := []byte(`{"do":"publish","ref":1,"room":"a","data":"` + strings.Repeat("x", 128) + `"}`)
	go func() {
		out := bufio.NewWriterSize(k.conn, 64<<10)
		for range b.N {
			if wsutil.WriteClientText(out, text) != nil {
				return
			}
		}
		out.Flush()
	}()
	for range b.N {
		k.next()
	}
}
