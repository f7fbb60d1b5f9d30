package frame

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// model decodes the whole input at once, slowly and plainly, from the RFC's text.
func model(input []byte, l Limits, compression bool) (events []string) {
	var message []byte
	var op byte
	var compressed bool
	frames := 0
	broken := func(v Violation) []string { return append(events, "broken: "+v.String()) }
	for {
		if len(input) < 2 {
			return events
		}
		b0, b1 := input[0], input[1]
		this := b0 & 15
		control := this >= 8
		switch {
		case b0&0x30 != 0 || b0&0x40 != 0 && !compression:
			return broken(ReservedBits)
		case this > 2 && this < 8 || this > 10:
			return broken(ReservedOpcode)
		case b0&0x40 != 0 && (control || this == 0):
			return broken(CompressedControl)
		case control && b0&0x80 == 0:
			return broken(FragmentedControl)
		case control && b1&127 > 125:
			return broken(LongControl)
		case this == 0 && op == 0:
			return broken(StrayContinuation)
		case !control && this != 0 && op != 0:
			return broken(InterruptedMessage)
		case b1&128 == 0:
			return broken(Unmasked)
		}
		n, at := uint64(b1&127), 2
		if n == 126 {
			if len(input) < 8 {
				return events
			}
			if n, at = uint64(binary.BigEndian.Uint16(input[2:])), 4; n < 126 {
				return broken(LongLength)
			}
		} else if n == 127 {
			if len(input) < 14 {
				return events
			}
			n, at = binary.BigEndian.Uint64(input[2:]), 10
			if n>>63 != 0 {
				return broken(HugeLength)
			}
			if n < 1<<16 {
				return broken(LongLength)
			}
		}
		if len(input) < at+4 {
			return events
		}
		if !control {
			if this != 0 {
				message, frames, compressed = nil, 0, b0&0x40 != 0
			}
			limit := l.MessageBytes
			if compressed {
				limit += limit/1024 + compressedSlack
			}
			if n > uint64(limit)-uint64(len(message)) {
				return broken(TooBig)
			}
			if frames++; frames > l.Fragments {
				return broken(TooManyFragments)
			}
		}
		key := input[at : at+4]
		input = input[at+4:]
		have := min(n, uint64(len(input)))
		payload := make([]byte, have)
		for i := range payload {
			payload[i] = input[i] ^ key[i%4]
		}
		input = input[have:]
		if control {
			if have < n {
				return events
			}
			events = append(events, event(Part{Kind: Ping, Op: ws.OpCode(this)}, payload))
			continue
		}
		if this != 0 {
			op = this
		}
		message = append(message, payload...)
		last := have == n && b0&0x80 != 0
		if op == 1 && !compressed && !plausible(message, last) {
			return broken(InvalidUTF8)
		}
		if have < n {
			return events
		}
		if last {
			events = append(events, event(Part{Kind: Data, Op: ws.OpCode(op), Compressed: compressed}, message))
			op = 0
		}
	}
}

// plausible reports whether p is valid UTF-8, or could become so.
func plausible(p []byte, whole bool) bool {
	if whole || utf8.Valid(p) {
		return utf8.Valid(p)
	}
	for cut := 1; cut <= 3 && cut <= len(p); cut++ {
		head, tail := p[:len(p)-cut], p[len(p)-cut:]
		if !utf8.Valid(head) {
			continue
		}
		return couldBegin(tail)
	}
	return false
}

// couldBegin tries every way to go on.
func couldBegin(tail []byte) bool {
	for _, second := range []byte{0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf} {
		for n := len(tail) + 1; n <= 4; n++ {
			full := append([]byte(nil), tail...)
			for len(full) < n {
				if len(full) == 1 {
					full = append(full, second)
				} else {
					full = append(full, 0x80)
				}
			}
			if utf8.Valid(full) && utf8.RuneCount(full) == 1 {
				return true
			}
		}
	}
	return false
}

// FuzzDecoder holds the decoder, fed in chunks that the input chooses, against the model, which gets all bytes at
// once.
func FuzzDecoder(f *testing.F) {
	for _, c := range clauses {
		if len(c.input) < 1<<12 {
			f.Add(c.input, uint64(1), false)
			f.Add(c.input, uint64(2), true)
		}
	}
	limits := Limits{MessageBytes: 300, Fragments: 4}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64, compression bool) {
		r := rand.New(rand.NewPCG(seed, 0))
		want := fmt.Sprint(model(input, limits, compression))
		for _, cut := range []func(int) int{whole, single, func(left int) int { return r.IntN(left) + 1 }} {
			var d Decoder
			d.Reset(&limits, compression)
			if got := fmt.Sprint(feed(t, &d, input, cut)); got != want {
				t.Fatalf("got  %s\nwant %s", got, want)
			}
		}
	})
}

// FuzzRoundTrip decodes the frames of AppendMasked.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("hello"), uint32(7), uint64(3))
	f.Add(make([]byte, 300), uint32(1), uint64(9))
	limits := Limits{MessageBytes: 1 << 20, Fragments: 1}
	f.Fuzz(func(t *testing.T, payload []byte, key uint32, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 0))
		var k [4]byte
		binary.LittleEndian.PutUint32(k[:], key)
		var d Decoder
		d.Reset(&limits, false)
		got := feed(t, &d, AppendMasked(nil, ws.OpBinary, k, payload), func(left int) int { return r.IntN(left) + 1 })
		if want := fmt.Sprintf("[2:%q compressed=false]", payload); fmt.Sprint(got) != want {
			t.Fatalf("got %.200s, want %.200s", got, want)
		}
	})
}

// FuzzUTF8 holds the incremental check against the standard library.
func FuzzUTF8(f *testing.F) {
	f.Add([]byte("κόσμε"), 1)
	f.Add([]byte("\xed\xa0\x80 and a long tail of ASCII so that vector code has something to do ..................."), 3)
	f.Fuzz(func(t *testing.T, p []byte, step int) {
		step = max(step%100, 1)
		var u UTF8
		ok := true
		for i := 0; i < len(p) && ok; i += step {
			ok = u.Feed(p[i:min(i+step, len(p))])
		}
		if got := ok && u.Whole(); got != utf8.Valid(p) {
			t.Fatalf("%q by %d: got %v", p, step, got)
		}
	})
}
