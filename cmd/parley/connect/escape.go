package connect

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// zeroWidthJoiner joins emoji, and no terminal obeys it.
const zeroWidthJoiner = '\u200d'

// harmless reports whether a character may be written to a terminal. Control characters may not, and neither may those that
// change the direction of a text.
func harmless(r rune) bool { return unicode.IsGraphic(r) || r == zeroWidthJoiner }

// escaped is a text in which each character that is not harmless is written as Go would: \n, \x1b, \u202e. A byte that is not UTF-8
// is written as \xff.
func escaped(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return !harmless(r) || r == utf8.RuneError }) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case harmless(r):
			b.WriteString(text[i : i+n])
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += n
	}
	return b.String()
}

// escapedJSON is a valid JSON text on one line, in which each character that is not harmless is written as JSON does: \u009b. Its
// value is the same.
func escapedJSON(text []byte) []byte {
	var line bytes.Buffer
	if json.Compact(&line, text) != nil {
		return nil
	}
	text = line.Bytes()
	if !bytes.ContainsFunc(text, func(r rune) bool { return !harmless(r) }) {
		return text
	}
	var b bytes.Buffer
	for _, r := range string(text) {
		switch {
		case harmless(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

// clipped is the beginning of a long text, with its length.
func clipped(text string) string {
	if len(text) <= shownBytesMax {
		return text
	}
	end := shownBytesMax
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return fmt.Sprintf("%s... (%d bytes; --raw and --json show all of them)", text[:end], len(text))
}
