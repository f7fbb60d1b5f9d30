package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"github.com/gobwas/ws"
)

var testLimits = Limits{MessageBytes: 1 << 20, Fragments: 64}

// event is a message, a control frame, or a violation.
func event(p Part, payload []byte) string {
	switch p.Kind {
	case Data:
		return fmt.Sprintf("%d:%q compressed=%v", p.Op, payload, p.Compressed)
	case Broken:
		return "broken: " + p.Violation.String()
	default:
		return fmt.Sprintf("control %d:%q", p.Op, payload)
	}
}

// feed decodes input in chunks that cut chooses, and returns the events.
func feed(t *testing.T, d *Decoder, input []byte, cut func(left int) int) []string {
	t.Helper()
	var events []string
	var message []byte
	open := false
	for len(input) > 0 {
		n := min(max(cut(len(input)), 1), len(input))
		chunk := bytes.Clone(input[:n])
		input = input[n:]
		for {
			part, rest := d.Next(chunk)
			if part.Kind == None {
				if len(rest) != 0 {
					t.Fatalf("None leaves %d bytes", len(rest))
				}
				break
			}
			if part.Kind == Data {
				if part.First == open {
					t.Fatalf("First is %v inside=%v", part.First, open)
				}
				message = append(message, part.Payload...)
				open = !part.Last
				if part.Last {
					events = append(events, event(part, message))
					message = nil
				}
			} else {
				events = append(events, event(part, part.Payload))
			}
			chunk = rest
		}
	}
	return events
}

func whole(left int) int { return left }
func single(int) int     { return 1 }

// raw builds one masked frame with any first byte and any encoding of the length.
func raw(b0 byte, lengthForm int, payload []byte) []byte {
	out := []byte{b0}
	switch lengthForm {
	case 0:
		out = append(out, 0x80|byte(len(payload)))
	case 2:
		out = binary.BigEndian.AppendUint16(append(out, 0x80|126), uint16(len(payload)))
	case 8:
		out = binary.BigEndian.AppendUint64(append(out, 0x80|127), uint64(len(payload)))
	}
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	out = append(out, key[:]...)
	for i, b := range payload {
		out = append(out, b^key[i%4])
	}
	return out
}

func text(s string) []byte { return raw(0x81, 0, []byte(s)) }

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

var clauses = []struct {
	name  string
	input []byte
	want  []string
}{
	{"[RFC 6455 §5.7] case 1.1.1 a masked text message", unhex("81 85 37 fa 21 3d 7f 9f 4d 51 58"), []string{`1:"Hello" compressed=false`}},
	{"[RFC 6455 §5.6] case 1.1.1 empty text", text(""), []string{`1:"" compressed=false`}},
	{"[RFC 6455 §5.6] case 1.2.1 empty binary", raw(0x82, 0, nil), []string{`2:"" compressed=false`}},
	{"[RFC 6455 §5.2] case 1.1.4 a length in two bytes", raw(0x81, 2, bytes.Repeat([]byte{'*'}, 126)), []string{fmt.Sprintf("1:%q compressed=false", strings.Repeat("*", 126))}},
	{"[RFC 6455 §5.5.2] case 2.4 ping with a payload", raw(0x89, 0, []byte{0, 0xff}), []string{`control 9:"\x00\xff"`}},
	{"[RFC 6455 §5.5.3] case 2.7 unsolicited pong", raw(0x8a, 0, nil), []string{`control 10:""`}},
	{"[RFC 6455 §5.5] case 2.5 ping of 126 bytes", raw(0x89, 2, make([]byte, 126)), []string{"broken: control frames carry at most 125 bytes"}},
	{"[RFC 6455 §5.5] case 5.1 fragmented ping", raw(0x09, 0, nil), []string{"broken: control frames must not be fragmented"}},
	{"[RFC 6455 §5.2] case 3.2 RSV3 after a message", join(text("a"), raw(0x91, 0, []byte("b"))), []string{`1:"a" compressed=false`, "broken: a reserved bit is set"}},
	{"[RFC 6455 §5.2] case 3.4 RSV1 without an extension", raw(0xc1, 0, nil), []string{"broken: a reserved bit is set"}},
	{"[RFC 6455 §5.2] case 4.1.1 reserved data opcode 3", raw(0x83, 0, nil), []string{"broken: the opcode is reserved"}},
	{"[RFC 6455 §5.2] case 4.2.1 reserved control opcode 11", raw(0x8b, 0, nil), []string{"broken: the opcode is reserved"}},
	{"[RFC 6455 §5.4] case 5.3 two fragments", join(raw(0x01, 0, []byte("a")), raw(0x80, 0, []byte("b"))), []string{`1:"ab" compressed=false`}},
	{"[RFC 6455 §5.4] case 5.6 a ping between fragments", join(raw(0x01, 0, []byte("a")), raw(0x89, 0, []byte("p")), raw(0x80, 0, []byte("b"))), []string{`control 9:"p"`, `1:"ab" compressed=false`}},
	{"[RFC 6455 §5.4] case 5.9 nothing to continue", raw(0x80, 0, nil), []string{"broken: there is no message to continue"}},
	{"[RFC 6455 §5.4] case 5.18 text inside text", join(raw(0x01, 0, []byte("a")), text("b")), []string{"broken: a message began inside another"}},
	{"[RFC 6455 §5.4] empty fragments", join(raw(0x01, 0, nil), raw(0x00, 0, nil), raw(0x80, 0, nil)), []string{`1:"" compressed=false`}},
	{"[RFC 6455 §8.1] case 6.3.1 invalid UTF-8", text("\xce\xba\xed\xa0\x80"), []string{"broken: text is not valid UTF-8"}},
	{"[RFC 6455 §8.1] case 6.2.3 a character cut by a frame", join(raw(0x01, 0, []byte("\xce")), raw(0x80, 0, []byte("\xba"))), []string{"1:\"κ\" compressed=false"}},
	{"[RFC 6455 §8.1] text that ends inside a character", text("\xce"), []string{"broken: text is not valid UTF-8"}},
	{"[RFC 3629 §4] case 6.23.1 the highest character", text("\xf4\x8f\xbf\xbf"), []string{"1:\"\\U0010ffff\" compressed=false"}},
	{"[RFC 6455 §5.1] an unmasked frame", []byte{0x81, 0x01, 'a'}, []string{"broken: frames of a client must be masked"}},
	{"[RFC 6455 §5.2] a short length in two bytes", raw(0x81, 2, []byte("a")), []string{"broken: the length is not encoded in the fewest bytes"}},
	{"[RFC 6455 §5.2] a short length in eight bytes", raw(0x81, 8, []byte("a")), []string{"broken: the length is not encoded in the fewest bytes"}},
	{"[RFC 6455 §5.2] a length of 2^63", unhex("82 ff 80 00 00 00 00 00 00 00 00 00 00 00"), []string{"broken: the length has its highest bit set"}},
	{"[RFC 6455 §7.4.1] a declared 2^62", unhex("82 ff 40 00 00 00 00 00 00 00 00 00 00 00"), []string{"broken: the message is too big"}},
	{"[RFC 6455 §7.4.1] fragments without end", bytes.Repeat(raw(0x00, 0, nil), 100), []string{"broken: there is no message to continue"}},
	{"[RFC 6455 §7.4.1] more fragments than allowed", join(raw(0x02, 0, nil), bytes.Repeat(raw(0x00, 0, nil), 64)), []string{"broken: the message has too many fragments"}},
	{"[RFC 6455 §7.4.1] fragments that grow too big together", bytes.Join([][]byte{raw(0x02, 8, make([]byte, 1<<19)), raw(0x00, 8, make([]byte, 1<<19)), raw(0x80, 0, []byte("x"))}, nil), []string{"broken: the message is too big"}},
	{"[RFC 6455 §5.5.1] case 7.3.4 close", raw(0x88, 0, []byte("\x03\xe8bye")), []string{`control 8:"\x03\xe8bye"`}},
}

// The decoder obeys every clause, with the input whole, one byte at a time, and cut at random.
func TestClauses(t *testing.T) {
	for _, c := range clauses {
		t.Run(c.name, func(t *testing.T) {
			for name, cut := range map[string]func(int) int{"whole": whole, "single": single,
				"random": func(left int) int { return rand.IntN(left) + 1 }} {
				if name != "whole" && len(c.input) > 1<<16 {
					continue
				}
				var d Decoder
				d.Reset(&testLimits, false)
				if got := feed(t, &d, c.input, cut); fmt.Sprint(got) != fmt.Sprint(c.want) {
					t.Errorf("%s:\n got %q\nwant %q", name, got, c.want)
				}
			}
		})
	}
}

// [RFC 7692 §6.1] RSV1 belongs to a message's first frame, and to no control frame.
func TestCompressedBit(t *testing.T) {
	for _, c := range []struct {
		name  string
		input []byte
		want  string
	}{
		{"a compressed message", raw(0xc1, 0, []byte{1, 0xff}), `[1:"\x01\xff" compressed=true]`},
		{"continued", join(raw(0x41, 0, []byte{1}), raw(0x80, 0, []byte{2})), `[1:"\x01\x02" compressed=true]`},
		{"set on a continuation", join(raw(0x41, 0, []byte{1}), raw(0xc0, 0, []byte{2})), "[broken: only a message's first frame may have RSV1 set]"},
		{"set on a ping", raw(0xc9, 0, nil), "[broken: only a message's first frame may have RSV1 set]"},
		{"RSV2 is refused all the same", raw(0xa1, 0, nil), "[broken: a reserved bit is set]"},
	} {
		var d Decoder
		d.Reset(&testLimits, true)
		if got := fmt.Sprint(feed(t, &d, c.input, single)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}

// [RFC 6455 §8.1] case 6.4: text fails at the first wrong byte, not at the message's end.
func TestFailsFast(t *testing.T) {
	var d Decoder
	d.Reset(&testLimits, false)
	input := raw(0x81, 0, []byte("abc\xf4\x90long after"))
	for i := range input {
		part, _ := d.Next(input[i : i+1])
		if part.Kind == Broken {
			if want := 2 + 4 + len("abc\xf4\x90") - 1; i != want {
				t.Fatalf("failed at byte %d, want %d", i, want)
			}
			return
		}
	}
	t.Fatal("passed")
}

// A decoder is small, since every connection has one, and decoding allocates nothing.
func TestCost(t *testing.T) {
	if size := unsafe.Sizeof(Decoder{}); size > 64 {
		t.Errorf("a Decoder takes %d bytes, at most 64 are planned for", size)
	}
	var d Decoder
	d.Reset(&testLimits, false)
	input := bytes.Repeat(AppendMasked(nil, ws.OpText, [4]byte{1, 2, 3, 4}, bytes.Repeat([]byte("x"), 64)), 16)
	work := bytes.Clone(input)
	if n := testing.AllocsPerRun(100, func() {
		copy(work, input)
		for rest := work; len(rest) > 0; {
			_, rest = d.Next(rest)
		}
	}); n != 0 {
		t.Errorf("decoding allocates %v times", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, size := range []int{64, 1024, 64 << 10} {
		b.Run(fmt.Sprintf("16x%d", size), func(b *testing.B) {
			limits := Limits{MessageBytes: 1 << 20, Fragments: 16}
			var d Decoder
			d.Reset(&limits, false)
			input := bytes.Repeat(AppendMasked(nil, ws.OpBinary, [4]byte{1, 2, 3, 4}, make([]byte, size)), 16)
			b.SetBytes(int64(len(input)))
			for b.Loop() {
				for rest := input; len(rest) > 0; {
					_, rest = d.Next(rest)
				}
			}
		})
	}
}

// BenchmarkUnmask shows where gobwas's cipher overtakes the loop (cipherMin).
func BenchmarkUnmask(b *testing.B) {
	for _, size := range []int{32, 64, 128, 191, 256, 1024, 16384} {
		p := make([]byte, size)
		b.Run(fmt.Sprintf("ours/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				unmaskSmall(p, [4]byte{1, 2, 3, 4}, 0)
			}
		})
		b.Run(fmt.Sprintf("gobwas/%d", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				ws.Cipher(p, [4]byte{1, 2, 3, 4}, 0)
			}
		})
	}
}

// A decoder that was never reset refuses frames; it does not fail.
func TestZeroDecoder(t *testing.T) {
	for _, chunk := range [][]byte{{0x81, 0x81, 0, 0, 0, 0, 'x'}, {0x81}, {0x88, 0x80, 0, 0, 0, 0}, {0xff, 0xff, 0xff}, make([]byte, 300)} {
		var d Decoder
		part, rest := d.Next(chunk)
		if part.Kind != Broken || part.Violation != NotReady || rest != nil {
			t.Errorf("% x: %+v, %d bytes left", chunk[:min(9, len(chunk))], part, len(rest))
		}
	}
}
