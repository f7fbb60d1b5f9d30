package conformance

import (
	"bufio"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// TestBreaches gives the client frames that no server may send.
func TestBreaches(t *testing.T) {
	big := strings.Repeat("x", 126)
	for name, wire := range map[string]string{
		"masked":                         "\x81\x81\x00\x00\x00\x00a",
		"16 bits for 5":                  "\x82\x7e\x00\x05hello",
		"64 bits for 65535":              "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff",
		"length beyond all bounds":       "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00",
		"RSV1 without an extension":      "\xc1\x01a",
		"RSV2":                           "\xa1\x01a",
		"ping with RSV1":                 "\xc9\x00",
		"reserved data opcode":           "\x83\x00",
		"reserved control opcode":        "\x8b\x00",
		"ping of 126":                    "\x89\x7e\x00\x7e" + big,
		"ping in fragments":              "\x09\x00",
		"continuation of nothing":        "\x80\x00",
		"text within a text":             "\x01\x01a\x81\x01b",
		"text that is no UTF-8":          "\x81\x01\xff",
		"text that ends in a code point": "\x01\x01\xc3\x80\x00",
		"close with one octet":           "\x88\x01\x03",
		"close 1005":                     "\x88\x02\x03\xed",
		"close 1006":                     "\x88\x02\x03\xee",
		"close 1015":                     "\x88\x02\x03\xf7",
		"close 999":                      "\x88\x02\x03\xe7",
		"close 2999":                     "\x88\x02\x0b\xb7",
		"close 5000":                     "\x88\x02\x13\x88",
		"close with a text of no UTF-8":  "\x88\x03\x03\xe8\xff",
		"a frame after the close frame":  "\x88\x00\x89\x00",
	} {
		in := &inbound{in: bufio.NewReader(strings.NewReader(wire))}
		var err error
		for err == nil {
			_, err = in.next()
		}
		if !errors.As(err, new(breach)) {
			t.Errorf("%s: %v, want a breach", name, err)
		}
	}
}

// TestAllowed gives the client frames that a server may send, in their longer forms.
func TestAllowed(t *testing.T) {
	in := &inbound{in: bufio.NewReader(strings.NewReader(
		"\x01\x01\xc3\x89\x01p\x80\x01\xa4\x82\x00\x82\x7e\x00\x7e" + strings.Repeat("x", 126) + "\x88\x02\x0f\xa1"))}
	var got []string
	for {
		s, err := in.next()
		if err != nil {
			if err != io.EOF {
				t.Fatal(err)
			}
			break
		}
		got = append(got, s.String())
	}
	want := []string{`ping 1 octets 70 "p"`, `text 2 octets c3a4 "ä"`, "binary (empty)", "binary 126 octets", `close 4001 ""`}
	if len(got) != len(want) {
		t.Fatalf("heard %q", got)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("heard %q, want %q", got[i], want[i])
		}
	}
}

// TestReport compares the text of one failure.
func TestReport(t *testing.T) {
	addr := startReference(t, "failing drops what is owed")
	for _, r := range rows() {
		if r.number != "3.2" {
			continue
		}
		err := play(Options{Addr: addr}, r)
		if err == nil {
			t.Fatal("case 3.2 passes")
		}
		for _, part := range []string{
			"case 3.2 (§5.2)", "NON-STRICT", `sent   text 13 octets 48656c6c6f2c20776f726c6421 "Hello, world!", text RSV=2`,
			"want   text 13 octets", "want   close [1002], then the server ends the stream", `heard  close 1002 ""`,
		} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q is missing in:\n%v", part, err)
			}
		}
	}
}

// TestDialFails shows that a case fails, and does not hang, with a server that does not speak WebSocket.
func TestDialFails(t *testing.T) {
	for name, answer := range map[string]string{
		"404":          "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
		"wrong accept": "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n",
		"no upgrade":   "HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n",
		"silence":      "",
	} {
		t.Run(name, func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				if tcp, err := listener.Accept(); err == nil {
					_, _ = io.WriteString(tcp, answer)
					_, _ = io.Copy(io.Discard, tcp)
					_ = tcp.Close()
				}
			}()
			if play(Options{Addr: listener.Addr().String(), Deadline: 200 * time.Millisecond}, framingRows()[0]) == nil {
				t.Error("the case passes")
			}
		})
	}
}
