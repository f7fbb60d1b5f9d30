package frame

import (
	"testing"
	"unicode/utf8"
)

// For each character at each place in a text, the check by words and the check by vectors agree with the standard
// library.
func TestValidUTF8AtEachPlace(t *testing.T) {
	for _, n := range []int{0, 1, 7, 8, 31, 32, 33, 64, 100, plainMax, plainMax + 1, 2 * plainMax} {
		for _, piece := range []string{"", "ä", "\xff", "\xc3", "\xed\xa0\xbd", "😀", "\xf0\x9f"} {
			for at := 0; at+len(piece) <= n; at += 1 + n/40 {
				text := make([]byte, n)
				copy(text[at:], piece)
				if got, want := ValidUTF8(text), utf8.Valid(text); got != want {
					t.Fatalf("%d bytes with %q at %d: %v, want %v", n, piece, at, got, want)
				}
			}
		}
	}
}
