package connect

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/cmd/parley/client"
	"github.com/parleyd/parley/engine"
)

// played is a server that plays a part: after each handshake play writes what it likes.
func played(t *testing.T, play func(conn net.Conn)) string {
	t.Helper()
	return accepting(t, func(conn net.Conn) {
		if _, err := ws.Upgrade(conn); err == nil {
			play(conn)
		}
	})
}

// accepting is a listener that serves each connection until serve returns.
func accepting(t *testing.T, serve func(conn net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// untilClose reads the client's frames up to its close frame, and returns the code of that.
func untilClose(conn net.Conn) ws.StatusCode {
	for {
		f, err := ws.ReadFrame(conn)
		if err != nil {
			return 0
		}
		if f = ws.UnmaskFrame(f); f.Header.OpCode == ws.OpClose {
			code, _ := ws.ParseCloseFrameData(f.Payload)
			return code
		}
	}
}

const greeting = `{"type":"connected","connection_id":"8fc1000100000a3c5be7d1a2","timestamp":1790000000}`

// says writes texts behind a greeting, and waits for the client's end.
func says(texts ...string) func(net.Conn) {
	return func(conn net.Conn) {
		for _, text := range append([]string{greeting}, texts...) {
			ws.WriteFrame(conn, ws.NewTextFrame([]byte(text)))
		}
		bufio.NewReader(conn).WriteTo(new(bytes.Buffer))
	}
}

// A server that breaks RFC 6455 is told so, and ends the client with one sentence.
func TestBrokenFrames(t *testing.T) {
	long := func(n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{0x82, 127}, n) }
	for name, c := range map[string]struct {
		bytes []byte
		says  string
		code  ws.StatusCode
	}{
		"a compressed frame":          {[]byte{0xc1, 1, 'x'}, "compressed", 1002},
		"a reserved operation":        {[]byte{0x83, 0}, "reserved", 1002},
		"a masked frame":              {[]byte{0x81, 0x81, 0, 0, 0, 0, 'x'}, "must be not masked", 1002},
		"a continuation of nothing":   {[]byte{0x80, 0}, "continuation", 1002},
		"a text in the middle":        {[]byte{0x01, 1, 'x', 0x81, 0}, "non-continuation", 1002},
		"a long ping":                 {append([]byte{0x89, 126, 0, 126}, make([]byte, 126)...), "payload limit", 1002},
		"a ping in parts":             {[]byte{0x09, 0}, "not final", 1002},
		"no UTF-8":                    {[]byte{0x81, 2, 0xc3, 0x28}, "UTF-8", 1007},
		"half a character":            {[]byte{0x01, 1, 0xc3, 0x80, 0}, "UTF-8", 1007},
		"a length that cannot be":     {long(1 << 63), "impossible length", 1002},
		"a huge length":               {long(1 << 40), "67108864 bytes", 1009},
		"a close frame of one byte":   {[]byte{0x88, 1, 3}, "close frame", 1002},
		"a close frame with no code":  {[]byte{0x88, 2, 0, 5}, "close frame", 1002},
		"a close frame with bad text": {[]byte{0x88, 3, 0x03, 0xe8, 0xff}, "close frame", 1002},
		"an endless message":          {bytes.Repeat(append([]byte{0x02, 127, 0, 0, 0, 0, 0, 1, 0, 0}, make([]byte, 1<<16)...), 3), "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan ws.StatusCode, 1)
			bad := c.bytes
			if name == "an endless message" { // continued for ever, in parts
				part := append([]byte{0x00, 127, 0, 0, 0, 0, 0, 0x40, 0, 0}, make([]byte, 4<<20)...)
				bad, c.says, c.code = bytes.Join([][]byte{{0x02, 0}, bytes.Repeat(part, 17)}, nil), "67108864 bytes", 1009
			}
			address := played(t, func(conn net.Conn) {
				ws.WriteFrame(conn, ws.NewTextFrame([]byte(greeting)))
				go conn.Write(bad)
				got <- untilClose(conn)
			})
			ann := sit(t, address, func(o *Options) { o.Listen = true })
			err := ann.end()
			if codeOf(err) != client.Failed || !strings.Contains(err.Error(), "breaks the WebSocket protocol") || !strings.Contains(err.Error(), c.says) {
				t.Error(err)
			}
			if code := <-got; code != c.code {
				t.Errorf("it is told %d", code)
			}
		})
	}
}

// hostileTexts are messages that are none, or not what they seem.
var hostileTexts = []string{
	`{"type":"joined","room":5,"members":"x"}`, `{"type":"joined"}`, `{"type":"joined","room":"a","seq":-1,"epoch":5}`, `{"type":"joined","room":"a","seq":1e300,"epoch":"e"}`,
	`{"type":"reconnected","rooms":{},"positions":[],"missing":7,"lost":"x"}`, `{"type":"reconnected","rooms":["a"],"positions":{"a":null},"missing":{"a":5}}`,
	`{"type":"gap"}`, `{"type":"gap","room":"a","from":"x","seq":5,"epoch":"e"}`, `{"type":"gap","room":"a","from":9,"seq":5,"epoch":"e"}`,
	`{"type":"skip","room":"a","from":0,"seq":18446744073709551615,"epoch":"e"}`, `{"type":"left"}`, `{"type":"left","room":"a"}`,
	`{"type":"members","members":[1,2],"users":[5]}`, `{"type":"members","room":"a","members":["x"],"users":[]}`, `{"type":"history","messages":[5,"x",{"type":"history","messages":[]}]}`,
	`{"type":"goodbye","retry_after":-5}`, `{"type":"auth_expiring","expires_in":"x"}`, `{"type":"error","code":5,"ref":{"a":1}}`, `{"type":"error","ref":"parley-1"}`,
	`{"type":5}`, `{"type":null}`, `{}`, `[]`, `null`, `7`, `"x"`, ``, ` `, `{`, `{"type":"x"`, "\x00", `{"TYPE":"joined","ROOM":"a"}`, `{"type":"broadcast","room":"a","data":null}`,
	`{"type":"broadcast","room":"a","from":[],"data":{"a":1},"timestamp":9223372036854775807}`, `{"type":"broadcast"}`, `{"type":"connected"}`, `{"type":"authenticated","ref":"parley-1"}`,
	strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000), `{"type":"x","pad":"` + strings.Repeat("x", 1<<20) + `"}`, "pong",
}

// Whatever texts a server sends, in any form, the client goes on.
func TestGarbage(t *testing.T) {
	for _, form := range []Form{Lines, Raw, JSON} {
		address := played(t, says(append(hostileTexts, `{"type":"broadcast","room":"a","data":"the end"}`)...))
		ann := sit(t, address, func(o *Options) {
			o.Form, o.Rooms, o.Listen, o.Limits.Close = form, []string{"a"}, true, 50*time.Millisecond
		})
		ann.sees("the end")
		if form == JSON {
			for line := range strings.Lines(ann.out.String()) {
				if !json.Valid([]byte(line)) {
					t.Errorf("%.100q is no JSON", line)
				}
			}
		}
		ann.interrupt()
		if err := ann.end(); err != nil {
			t.Error(err)
		}
	}
}

// No character that a terminal obeys gets through, from whatever a server can name; and what was meant can be read.
func TestEscapes(t *testing.T) {
	evil := "\x1b[2J\x1b]0;title\x07\u009b31m\u202eabc\r\nnext\u2028\x7f"
	quoted, err := json.Marshal(evil)
	if err != nil {
		t.Fatal(err)
	}
	plain := strings.ReplaceAll(`{"type":"broadcast","room":E,"from":E,"user":E,"data":E}`, "E", string(quoted))
	raw := strings.NewReplacer("\r", "", "\n", "", "\x1b", "", "\x07", "").Replace(evil) // what JSON allows unescaped
	texts := []string{plain, strings.ReplaceAll(plain, "broadcast", "other"), `{"type":"broadcast","room":"a","data":{"k":"` + raw + `"}}`, evil}
	for _, kind := range []string{"joined", "left", "member_joined", "error", "members", "connected", "authenticated", "goodbye"} {
		texts = append(texts, strings.ReplaceAll(`{"type":"`+kind+`","room":E,"connection_id":E,"user":E,"code":E,"message":E,"members":[E],"users":[E]}`, "E", string(quoted)))
	}
	for _, form := range []Form{Lines, Raw, JSON} {
		address := played(t, func(conn net.Conn) {
			ws.WriteFrame(conn, ws.NewPingFrame([]byte(evil[:20])))
			for _, text := range append([]string{greeting}, texts...) {
				ws.WriteFrame(conn, ws.NewTextFrame([]byte(text)))
			}
			ws.WriteFrame(conn, ws.NewBinaryFrame([]byte(evil)))
			ws.WriteFrame(conn, ws.NewCloseFrame(ws.NewCloseFrameBody(4500, evil)))
			bufio.NewReader(conn).WriteTo(new(bytes.Buffer))
		})
		ann := sit(t, address, func(o *Options) { o.Form, o.Listen = form, true })
		err := ann.end()
		shown := ann.out.String() + ann.notes.String() + err.Error()
		if bad := strings.IndexFunc(shown, func(r rune) bool { return r != '\n' && !harmless(r) }); bad >= 0 {
			t.Errorf("form %d: %q gets through", form, shown[max(0, bad-40):min(len(shown), bad+40)])
		}
		if want := map[Form]string{Lines: `\x1b[2J\x1b]0;title\a\u009b31m\u202eabc\r\nnext`, Raw: `\u001b[2J`, JSON: `\u001b[2J`}[form]; !strings.Contains(shown, want) {
			t.Errorf("form %d does not show %s:\n%s", form, want, shown)
		}
		if form != JSON {
			continue
		}
		lines := strings.Split(strings.TrimSpace(ann.out.String()), "\n")
		var m struct{ Data string }
		if err := json.Unmarshal([]byte(lines[1]), &m); err != nil || m.Data != evil {
			t.Errorf("%v: the data is %q", err, m.Data)
		}
		var b struct{ Binary []byte }
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &b); err != nil || string(b.Binary) != evil {
			t.Errorf("%v: the bytes are %q", err, b.Binary)
		}
	}
}

// A huge message is shown by its beginning to a person, and whole to a script.
func TestHugeMessage(t *testing.T) {
	s := serve(t, func(c *engine.Config) { c.MessageBytesMax = 8 << 20 })
	ann := sit(t, s.Addr().String(), inRooms("lobby"))
	ann.sees("joined: 1 member")
	bob := sit(t, s.Addr().String(), func(o *Options) { o.Rooms, o.Form = []string{"lobby"}, JSON })
	bob.sees(`"joined"`)
	cid := sit(t, s.Addr().String(), inRooms("lobby"))
	cid.sees("joined: 3 members")
	huge := strings.Repeat("ä", 2<<20)
	cid.types(huge)
	cid.sees("sent to 2 members")
	bob.sees(`"data":"` + huge + `"`)
	ann.sees(fmt.Sprintf("... (%d bytes; --raw and --json show all of them)", len(huge)))
	if n := len(ann.out.String()); n > 2*shownBytesMax {
		t.Errorf("a person reads %d bytes", n)
	}
	cid.types(strings.Repeat("x", lineBytesMax+1), "still here")
	cid.sees("it is not sent")
	ann.sees("> still here")
	cid.types("no \xff UTF-8", "and here")
	cid.sees("a line is not valid UTF-8")
	ann.sees("> and here")
}

// What is no WebSocket server is called that.
func TestNoWebSocket(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			w.Write([]byte("<html>\x1b[31m"))
		case "/moved":
			http.Redirect(w, r, "/", http.StatusFound)
		case "/secret":
			http.Error(w, "not \x1b[31m you\nsecond line", http.StatusForbidden)
		case "/busy":
			w.Header().Set("Retry-After", "7")
			http.Error(w, "too many", http.StatusServiceUnavailable)
		case "/switch":
			w.Header().Set("Upgrade", "websocket")
			w.Header().Set("Connection", "Upgrade")
			w.WriteHeader(http.StatusSwitchingProtocols)
		default:
			http.NotFound(w, r)
		}
	}))
	defer page.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	none, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	none.Close()
	curt := func(answer string) string {
		return accepting(t, func(conn net.Conn) {
			bufio.NewReader(conn).ReadString('\n')
			conn.Write([]byte(answer))
		})
	}
	web := strings.TrimPrefix(page.URL, "http://")
	for _, c := range []struct {
		address, path, scheme string
		code                  int
		says                  string
	}{
		{web, "/", "ws", client.Unreachable, "is no WebSocket server: it answers 200 OK"},
		{web, "/moved", "ws", client.Unreachable, "302 Found"},
		{web, "/else", "ws", client.Unreachable, "404 Not Found"},
		{web, "/secret", "ws", client.Refused, `refuses the handshake (403 Forbidden: not \x1b[31m you)`},
		{web, "/busy", "ws", client.Failed, "takes no connection now (503 Service Unavailable: too many): try again later"},
		{web, "/switch", "ws", client.Unreachable, "is no WebSocket server"},
		{web, "/", "wss", client.Unreachable, "speaks no TLS: write ws://"},
		{silent.Addr().String(), "/", "ws", client.Unreachable, "does not answer the handshake within 100ms"},
		{none.Addr().String(), "/", "ws", client.Unreachable, "no server answers on ws://" + none.Addr().String()},
		{curt(""), "/", "ws", client.Unreachable, "ends the connection without an answer to the handshake"},
		{curt("SSH-2.0-x \x1b[31m\r\n\r\n"), "/", "ws", client.Unreachable, "is no WebSocket server"},
		{curt(strings.Repeat("x", 1<<20)), "/", "ws", client.Unreachable, ""},
	} {
		ann := sit(t, c.address, func(o *Options) {
			o.URL.Path, o.URL.Scheme = c.path, c.scheme
			if c.says != "" && strings.Contains(c.says, "100ms") {
				o.Limits.Handshake = 100 * time.Millisecond
			}
		})
		err := ann.end()
		if codeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || strings.ContainsRune(err.Error(), '\x1b') {
			t.Errorf("%s %s: code %d, %v", c.address, c.path, codeOf(err), err)
		}
	}
}

// A server that greets and then says nothing is given up, and one that does not greet is not Parley.
func TestSilence(t *testing.T) {
	pings := make(chan string, 16)
	address := played(t, func(conn net.Conn) {
		ws.WriteFrame(conn, ws.NewTextFrame([]byte(greeting)))
		for {
			f, err := ws.ReadFrame(conn)
			if err != nil {
				return
			}
			pings <- string(ws.UnmaskFrame(f).Payload)
		}
	})
	ann := sit(t, address, func(o *Options) { o.Limits.Quiet, o.Limits.Gone = 40*time.Millisecond, 80*time.Millisecond })
	ann.sees("nothing was heard of the server for")
	if text := <-pings; !strings.HasPrefix(text, `{"type":"ping"`) {
		t.Error(text)
	}
	mute := played(t, func(conn net.Conn) { bufio.NewReader(conn).WriteTo(new(bytes.Buffer)) })
	err := sit(t, mute, func(o *Options) { o.Limits.Answer, o.Limits.Close = 60*time.Millisecond, 20*time.Millisecond }).end()
	if codeOf(err) != client.Unreachable || !strings.Contains(err.Error(), "does not answer as Parley does") {
		t.Error(err)
	}
}

// A server that reads nothing, and answers no close frame, does not keep the client from leaving.
func TestStuckServer(t *testing.T) {
	address := played(t, func(conn net.Conn) {
		ws.WriteFrame(conn, ws.NewTextFrame([]byte(greeting)))
		ws.WriteFrame(conn, ws.NewTextFrame([]byte(`{"type":"joined","room":"a","members":1,"ref":"parley-1"}`)))
		<-t.Context().Done()
	})
	ann := sit(t, address, func(o *Options) { o.Rooms, o.Limits.Close = []string{"a"}, 50*time.Millisecond })
	ann.sees("joined: 1 member")
	go func() {
		for range 64 { // more than the kernel takes
			fmt.Fprintln(ann.in, strings.Repeat("x", 1<<20))
		}
	}()
	ann.interrupt()
	if err := ann.end(); err != nil {
		t.Error(err)
	}
}
