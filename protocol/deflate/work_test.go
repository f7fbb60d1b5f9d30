package deflate

import (
	"bytes"
	"compress/flate"
	"testing"
)

// A message of several parts, each of which ends with a final block, is one message [RFC 7692 §7.2.3.4]. Too many parts
// for its length are refused before the copies of windows, which the test counts, cost too much.
func TestWorkIsBoundedByTheInput(t *testing.T) {
	text := bytes.Repeat([]byte("0123456789abcdef"), 4096) // 64 KiB
	whole := finished(text)
	empty := []byte("\x03\x00")              // an empty last block
	stored := []byte("\x00\x00\x00\xff\xff") // an empty stored block, not the last
	for _, row := range []struct {
		name    string
		message []byte
		want    Outcome
	}{
		{"one last block", whole, OK},
		{"three messages of a sender that ends each", bytes.Join([][]byte{finished(text[:99]), finished(text[:99]), finished(text[:99])}, nil), OK},
		{"empty last blocks", append(bytes.Clone(whole), bytes.Repeat(empty, 32_600)...), TooMany},
		{"nothing but empty last blocks", bytes.Repeat(empty, 32_600), TooMany},
		{"short last blocks", bytes.Repeat(finished([]byte("x")), 8000), TooMany},
		{"empty stored blocks", append(bytes.Repeat(stored, 13_000), whole...), OK},
	} {
		for _, w := range []*Window{nil, {size: 1 << bitsMax, kept: bytes.Clone(text[:1<<bitsMax])}} {
			i := inflaters.Get().(*inflater)
			i.copied = 0
			out, outcome := i.inflate(nil, row.message, 1<<20, w)
			if outcome != row.want {
				t.Errorf("%s: outcome %d, want %d", row.name, outcome, row.want)
			}
			if most := 2 * (partsLeast + len(row.message)/partBytes) << bitsMax; i.copied > most {
				t.Errorf("%s: %d bytes of windows are copied for %d of input, %d at most are in order", row.name, i.copied, len(row.message), most)
			}
			if row.want == OK && len(out) == 0 {
				t.Errorf("%s: the output is empty", row.name)
			}
			inflaters.Put(i)
		}
	}
}

// finished is deflate data that ends with a last block.
func finished(text []byte) []byte {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, flate.BestSpeed)
	w.Write(text)
	w.Close()
	return out.Bytes()
}

// BenchmarkHostileInput measures the cost per byte of input that is made to cost much.
func BenchmarkHostileInput(b *testing.B) {
	window := &Window{size: 1 << bitsMax, kept: make([]byte, 1<<bitsMax)}
	for _, row := range []struct {
		name    string
		message []byte
		window  *Window
	}{
		{"empty last blocks", bytes.Repeat([]byte("\x03\x00"), 32_000), nil},
		{"empty stored blocks", bytes.Repeat([]byte("\x00\x00\x00\xff\xff"), 13_000), nil},
		{"a byte with a window", []byte("\x4a\x04\x00"), window},
		{"nothing with a window", []byte("\x00"), window},
	} {
		b.Run(row.name, func(b *testing.B) {
			var out []byte
			b.SetBytes(int64(len(row.message)))
			for b.Loop() {
				out, _ = Inflate(out[:0], row.message, 1<<20, row.window)
			}
		})
	}
}
