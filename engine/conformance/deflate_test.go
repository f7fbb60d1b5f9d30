package conformance

import (
	"bytes"
	"compress/flate"
	"strings"
	"testing"
)

// TestInflate runs the simple inflater on every kind of block of the standard library's writer.
func TestInflate(t *testing.T) {
	for _, source := range []*corpus{jsonCorpus, pictureCorpus, paperCorpus} {
		want := source.cut(1, 100<<10)
		for _, level := range []int{flate.NoCompression, flate.HuffmanOnly, flate.BestSpeed, flate.BestCompression} {
			var b bytes.Buffer
			w, err := flate.NewWriter(&b, level)
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; at < len(want); at += 10 << 10 {
				if _, err = w.Write(want[at:min(len(want), at+10<<10)]); err == nil {
					err = w.Flush()
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			got, err := inflate(nil, b.Bytes(), 1<<15)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, level %d: %d octets of %d, error %v", source.title, level, len(got), len(want), err)
			}
			if _, err = inflate(nil, b.Bytes()[:b.Len()-1], 1<<15); err == nil {
				t.Errorf("%s, level %d: torn, and no error", source.title, level)
			}
		}
	}
}

// TestInflateWindow shows that a reference beyond the window is refused, which the standard library's reader cannot do.
func TestInflateWindow(t *testing.T) {
	apart := strings.Repeat("x", 600)
	for gap, ok := range map[int]bool{100: true, 600: false} {
		var b bytes.Buffer
		w, _ := flate.NewWriter(&b, flate.BestCompression)
		_, _ = w.Write([]byte("abcdefghijklm" + apart[:gap] + "abcdefghijklm"))
		_ = w.Flush()
		if _, err := inflate(nil, b.Bytes(), 512); (err == nil) != ok {
			t.Errorf("%d octets apart, window 512: error %v", gap, err)
		}
	}
}

// TestCodec sends messages through every combination of terms, and checks that none refers back further than they allow.
func TestCodec(t *testing.T) {
	for _, windowBits := range []int{8, 9, 12, 15} {
		for _, forgets := range []bool{false, true} {
			c, d := newCompressor(windowBits, forgets), newDecompressor(windowBits, forgets)
			strict := []byte{}
			for n := range 20 {
				want := jsonCorpus.cut(n, 700*n)
				packed := c.compress(want)
				got, err := d.decompress(packed)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("bits %d, forgets %v, message %d: error %v", windowBits, forgets, n, err)
				}
				if forgets {
					strict = strict[:0]
				}
				if strict, err = inflate(strict, append(bytes.Clone(packed), syncTail...), 1<<windowBits); err != nil {
					t.Fatalf("bits %d, forgets %v, message %d: %v", windowBits, forgets, n, err)
				}
			}
		}
	}
}

// TestContextIsTakenOver shows that our compressor makes a repeated message smaller: else the cases about context takeover
// would test nothing.
func TestContextIsTakenOver(t *testing.T) {
	for _, windowBits := range []int{12, 15} {
		c := newCompressor(windowBits, false)
		first := len(c.compress(jsonCorpus.cut(0, 300)))
		if second := len(c.compress(jsonCorpus.cut(0, 300))); second*2 > first {
			t.Errorf("bits %d: %d octets, then %d", windowBits, first, second)
		}
	}
}

// TestAgree is RFC 7692 §7.1 from the client's side.
func TestAgree(t *testing.T) {
	const name = "permessage-deflate"
	for _, c := range []struct {
		offer, answer string
		want          *terms
		fails         bool
	}{
		{offer: name, answer: ""},
		{offer: name, answer: name, want: &terms{serverBits: 15, clientBits: 15}},
		{offer: name, answer: name + "; server_max_window_bits=12", want: &terms{serverBits: 12, clientBits: 15}},
		{offer: name, answer: name + "; client_no_context_takeover", want: &terms{serverBits: 15, clientBits: 15, clientForgets: true}},
		{offer: plainOffer, answer: name + `; client_max_window_bits="10"`, want: &terms{serverBits: 15, clientBits: 10}},
		{offer: negotiated[6].offer, answer: name + "; server_no_context_takeover",
			want: &terms{serverBits: 15, clientBits: 15, serverForgets: true}},
		{offer: "", answer: name, fails: true},
		{offer: name, answer: "permessage-bzip2", fails: true},
		{offer: name, answer: name + "," + name, fails: true},
		{offer: name, answer: name + "; client_max_window_bits=10", fails: true},
		{offer: plainOffer, answer: name + "; client_max_window_bits", fails: true},
		{offer: name, answer: name + "; server_max_window_bits", fails: true},
		{offer: name, answer: name + "; server_max_window_bits=7", fails: true},
		{offer: name, answer: name + "; server_max_window_bits=08", fails: true},
		{offer: name, answer: name + "; server_no_context_takeover=1", fails: true},
		{offer: name, answer: name + "; server_no_context_takeover; server_no_context_takeover", fails: true},
		{offer: name, answer: name + "; mystery", fails: true},
		{offer: negotiated[1].offer, answer: name, fails: true},
		{offer: negotiated[2].offer, answer: name, fails: true},
		{offer: negotiated[2].offer, answer: name + "; server_max_window_bits=10", fails: true},
		{offer: name + "; client_max_window_bits=9", answer: name + "; client_max_window_bits=10", fails: true},
	} {
		got, err := agree(c.offer, c.answer)
		if (err != nil) != c.fails || (got == nil) != (c.want == nil) || got != nil && *got != *c.want {
			t.Errorf("offer %q, answer %q: %+v, %v", c.offer, c.answer, got, err)
		}
	}
}

// FuzzInflate looks for crashes and unbounded output: the inflater reads the bytes of a server under test.
func FuzzInflate(f *testing.F) {
	c := newCompressor(15, false)
	f.Add(bytes.Clone(c.compress(jsonCorpus.cut(0, 500))), 512)
	f.Add([]byte("\xf2\x48\xcd\xc9\xc9\x07\x00"), 256)
	f.Add([]byte("\xed\xff\xff\xff\xff"), 32768)
	f.Fuzz(func(t *testing.T, src []byte, window int) {
		if len(src) > 1<<12 {
			t.Skip()
		}
		out, err := inflate(nil, src, window)
		// A match of 258 octets costs at least two bits.
		if len(out) > 258*4*(len(src)+1) {
			t.Fatalf("%d octets out of %d", len(out), len(src))
		}
		if err != nil || window < 1<<15 {
			return
		}
		d := newDecompressor(15, false)
		if std, stdErr := d.readAll(append(bytes.Clone(src), syncTail...)); stdErr == nil && !bytes.Equal(std, out) {
			t.Fatalf("the standard library gives %d octets, this %d", len(std), len(out))
		}
	})
}
