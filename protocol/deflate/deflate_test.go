package deflate

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// [RFC 7692 §5] [RFC 7692 §7.1] the offers that are accepted, and their answers.
func TestNegotiate(t *testing.T) {
	for _, c := range []struct{ name, offer, want string }{
		{"nothing offered", "", "declined"},
		{"another extension", "x-webkit-deflate-frame", "declined"},
		{"[RFC 7692 §7.1] case 13.1 no parameters", "permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		{"[RFC 7692 §7.1.2.2] a browser's offer", "permessage-deflate; client_max_window_bits", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		{"[RFC 7692 §7.1.1.1] case 13.2", "permessage-deflate; server_no_context_takeover", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		{"[RFC 7692 §7.1.1.2]", "permessage-deflate; client_no_context_takeover", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		{"[RFC 7692 §7.1.2.1] case 13.3", "permessage-deflate; server_max_window_bits=9", "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9"},
		{"[RFC 7692 §7.1.2.2] with a value", `permessage-deflate; client_max_window_bits="10"`, "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits=10"},
		{"[RFC 7692 §7.1.2] too small", "permessage-deflate; server_max_window_bits=7", "declined"},
		{"[RFC 7692 §7.1.2] too large", "permessage-deflate; server_max_window_bits=16", "declined"},
		{"[RFC 7692 §7.1.2] leading zero", "permessage-deflate; server_max_window_bits=09", "declined"},
		{"[RFC 7692 §7.1.2.1] no value", "permessage-deflate; server_max_window_bits", "declined"},
		{"[RFC 7692 §7.1] unknown parameter", "permessage-deflate; foo=1", "declined"},
		{"[RFC 7692 §7.1] doubled parameter", "permessage-deflate; server_no_context_takeover; server_no_context_takeover", "declined"},
		{"[RFC 7692 §7.1.1.1] a value where none belongs", "permessage-deflate; server_no_context_takeover=1", "declined"},
		{"[RFC 7692 §5.1] case 13.7 falls back to the next offer", "permessage-deflate; server_max_window_bits=1, permessage-deflate; client_no_context_takeover", "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
	} {
		p, ok := Negotiate([]byte(c.offer), Options{})
		got := "declined"
		if ok {
			got = string(p.Append(nil))
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	for offer, want := range map[string]string{
		"permessage-deflate":                             "permessage-deflate",
		"permessage-deflate; client_no_context_takeover": "permessage-deflate; client_no_context_takeover",
		"permessage-deflate; server_no_context_takeover": "permessage-deflate; server_no_context_takeover",
		"permessage-deflate; server_max_window_bits=12":  "permessage-deflate; server_no_context_takeover; server_max_window_bits=12",
		"permessage-deflate; client_max_window_bits=12":  "permessage-deflate; client_max_window_bits=12",
	} {
		p, ok := Negotiate([]byte(offer), Options{ContextTakeover: true})
		if got := string(p.Append(nil)); !ok || got != want {
			t.Errorf("with context takeover %q is answered with %q, want %q", offer, got, want)
		}
	}
}

// standard inflates with the standard library, and fails if a reference goes back further than 2^bits.
func standard(t testing.TB, dict, compressed []byte) []byte {
	t.Helper()
	r := flate.NewReaderDict(io.MultiReader(bytes.NewReader(compressed), strings.NewReader(messageEnd)), dict)
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sample(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := []string{`{"type":"broadcast",`, `"room":"lobby",`, `"from":"`, "0123456789ab", `","data":`, "hello", " world"}
	var out []byte
	for len(out) < n {
		out = append(out, words[r.IntN(len(words))]...)
	}
	return out[:n]
}

// [RFC 7692 §7.2.1] Every window size round-trips, here and through the standard library, and no reference leaves the window.
func TestWindows(t *testing.T) {
	for bits := uint8(bitsMin); bits <= bitsMax; bits++ {
		for _, n := range []int{0, 1, 100, 1000, 5000, 70000} {
			src := sample(n)
			small := Shrink(nil, src, bits)
			if got := standard(t, nil, small); !bytes.Equal(got, src) {
				t.Fatalf("%d bits, %d bytes: the standard library reads something else", bits, n)
			}
			if got, outcome := Inflate(nil, small, n, nil); outcome != OK || !bytes.Equal(got, src) {
				t.Fatalf("%d bits, %d bytes: outcome %d", bits, n, outcome)
			}
			if n == 70000 && len(small) > n*9/10 {
				t.Errorf("%d bits: %d of %d bytes", bits, len(small), n)
			}
			if far := furthest(small); far > 1<<bits {
				t.Errorf("%d bits: a reference goes back %d bytes", bits, far)
			}
		}
	}
}

// With contexts kept on both sides, later messages are smaller, and are read right.
func TestContextTakeover(t *testing.T) {
	for _, size := range []int{300, 5000, 40_000, 100_000} {
		s, w := new(Shrinker), NewWindow(bitsMax)
		var history []byte
		first := 0
		for i := range 20 {
			src := append(sample(size), byte(i))
			small := s.Shrink(nil, src)
			got, outcome := Inflate(nil, small, 1<<20, w)
			if outcome != OK || !bytes.Equal(got, src) {
				t.Fatalf("message %d: outcome %d", i, outcome)
			}
			if std := standard(t, history, small); !bytes.Equal(std, src) {
				t.Fatalf("message %d: the standard library reads something else", i)
			}
			history = append(history, src...)
			history = history[max(0, len(history)-1<<15):]
			if i == 0 {
				first = len(small)
			} else if size == 300 && len(small) > first/2 {
				t.Errorf("message %d takes %d bytes, the first took %d: no context", i, len(small), first)
			}
			if len(s.dictionary) > dictionaryMax || cap(s.dictionary) > 4*dictionaryMax {
				t.Fatalf("the dictionary has grown to %d bytes, %d kept", len(s.dictionary), cap(s.dictionary))
			}
		}
		if small := s.Shrink(nil, nil); string(small) != "\x00" {
			t.Errorf("an empty message becomes %q", small)
		}
	}
}

// [RFC 7692 §7.2.3] the examples of the RFC: stored blocks, several blocks, a last block in the middle.
func TestExamples(t *testing.T) {
	for _, c := range []struct{ name, compressed, want string }{
		{"[RFC 7692 §7.2.3.1] one block", "\xf2\x48\xcd\xc9\xc9\x07\x00", "Hello"},
		{"[RFC 7692 §7.2.3.3] a stored block", "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", "Hello"},
		{"[RFC 7692 §7.2.3.4] BFINAL set", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00", "Hello"},
		{"[RFC 7692 §7.2.3.5] two blocks", "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", "Hello"},
		{"[RFC 7692 §7.2.3.6] empty", "\x00", ""},
	} {
		got, outcome := Inflate(nil, []byte(c.compressed), 100, nil)
		if outcome != OK || string(got) != c.want {
			t.Errorf("%s: %q, outcome %d", c.name, got, outcome)
		}
	}
	if _, outcome := Inflate(nil, []byte{0xff, 0xff, 0xff}, 100, nil); outcome != Corrupt {
		t.Errorf("garbage: outcome %d", outcome)
	}
}

// A bomb is stopped at the limit, and costs no more memory than a message of that size.
func TestBomb(t *testing.T) {
	bomb := Shrink(nil, make([]byte, 64<<20), 15)
	var got []byte
	var outcome Outcome
	allocated := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			got, outcome = Inflate(nil, bomb, 64<<10, nil)
		}
	}).AllocedBytesPerOp()
	if outcome != TooBig || len(got) > 64<<10+1 {
		t.Fatalf("outcome %d, %d bytes", outcome, len(got))
	}
	if allocated > 512<<10 {
		t.Errorf("%d bytes were allocated to refuse %d", allocated, len(bomb))
	}
}

// Warm, and with space in dst, Shrink and Inflate allocate nothing.
func TestNoAllocation(t *testing.T) {
	src, dst, back := sample(500), make([]byte, 0, 2000), make([]byte, 0, 8000)
	if n := testing.AllocsPerRun(200, func() { dst = Shrink(dst[:0], src, 15) }); n > 0.1 {
		t.Errorf("Shrink: %v allocations", n)
	}
	if n := testing.AllocsPerRun(200, func() { back, _ = Inflate(back[:0], dst, 1000, nil) }); n > 0.1 {
		t.Errorf("Inflate: %v allocations", n)
	}
}

func FuzzInflate(f *testing.F) {
	f.Add(Shrink(nil, sample(300), 15), 100)
	f.Add(Shrink(nil, sample(300), 9), 1000)
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), 5)
	f.Fuzz(func(t *testing.T, p []byte, limit int) {
		limit = limit & 0xffff
		out, outcome := Inflate(nil, p, limit, nil)
		if outcome == OK && len(out) > limit {
			t.Fatalf("%d bytes, limit %d", len(out), limit)
		}
		if len(out) > limit+1 {
			t.Fatalf("went on to %d bytes, limit %d", len(out), limit)
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add(sample(1000), uint8(9))
	f.Add([]byte{}, uint8(15))
	f.Fuzz(func(t *testing.T, src []byte, bits uint8) {
		bits = bitsMin + bits%(bitsMax-bitsMin+1)
		small := Shrink(nil, src, bits)
		got, outcome := Inflate(nil, small, len(src), nil)
		if outcome != OK || !bytes.Equal(got, src) || !bytes.Equal(standard(t, nil, small), src) {
			t.Fatalf("outcome %d, %q", outcome, got)
		}
	})
}

func BenchmarkShrink(b *testing.B) {
	for _, n := range []int{128, 1024, 4096} {
		for _, bits := range []uint8{9, 12, 15} {
			b.Run(fmt.Sprintf("%d/%d", n, bits), func(b *testing.B) {
				src := sample(n)
				var dst []byte
				b.SetBytes(int64(n))
				for b.Loop() {
					dst = Shrink(dst[:0], src, bits)
				}
				b.ReportMetric(float64(len(dst)), "bytes")
			})
		}
	}
}

func BenchmarkInflate(b *testing.B) {
	src := Shrink(nil, sample(1024), 15)
	dst := make([]byte, 0, 4096)
	for b.Loop() {
		dst, _ = Inflate(dst[:0], src, 4096, nil)
	}
}
