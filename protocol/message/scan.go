package message

import (
	"encoding/binary"
	"math/bits"
)

// The grammar of JSON [RFC 8259], without recursion and without decoding. Positions are indices; -1 means
// that the text is broken, or nested too deep.

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// special marks the bytes of w that need a look inside a string: a quote, a backslash, a control character. Only
// the lowest mark is sure; a mark above it may be wrong.
func special(w uint64) uint64 {
	quote := w ^ ones*'"'
	slash := w ^ ones*'\\'
	return ((quote-ones)&^quote | (slash-ones)&^slash | (w-ones*' ')&^w) & highs
}

// scanString returns the index behind the closing quote of a string whose inside starts at i.
func scanString(b []byte, i int) (end int, escaped bool) {
	for {
		for i+8 <= len(b) {
			if m := special(binary.LittleEndian.Uint64(b[i:])); m != 0 {
				i += bits.TrailingZeros64(m) / 8
				break
			}
			i += 8
		}
		if i >= len(b) {
			return -1, escaped
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, escaped
		case c == '\\':
			escaped = true
			if i = skipEscape(b, i+1); i < 0 {
				return -1, true
			}
		case c < ' ':
			return -1, escaped
		default:
			i++
		}
	}
}

// skipEscape returns the index behind an escape whose letter is at i.
func skipEscape(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		if i+5 > len(b) {
			return -1
		}
		for _, c := range b[i+1 : i+5] {
			if hexTable[c] == 0 {
				return -1
			}
		}
		if b[i+1]|0x20 == 'd' && b[i+2] >= '8' {
			return skipSurrogates(b, i)
		}
		return i + 5
	}
	return -1
}

// skipSurrogates is skipEscape for a surrogate, which must be the first of a pair, with the second behind it: many
// JSON readers refuse a text with a surrogate alone.
func skipSurrogates(b []byte, i int) int {
	if hexTable[b[i+2]]-1 >= 0xc || i+11 > len(b) || b[i+5] != '\\' || b[i+6] != 'u' ||
		b[i+7]|0x20 != 'd' || hexTable[b[i+8]]-1 < 0xc || hexTable[b[i+8]] == 0 || hexTable[b[i+9]] == 0 || hexTable[b[i+10]] == 0 {
		return -1
	}
	return i + 11
}

// hexTable has the value of a hexadecimal digit plus one, 0 for any other byte.
var hexTable = func() (t [256]uint8) {
	for i := range 10 {
		t['0'+i] = uint8(i + 1)
	}
	for i := range 6 {
		t['a'+i], t['A'+i] = uint8(i+11), uint8(i+11)
	}
	return t
}()

// skipValue returns the index behind the value at i, which is inside one object already.
func skipValue(b []byte, i int) int {
	var objects uint64 // a bit per open container: 1 for an object
	depth := 1
	for {
		if i >= len(b) {
			return -1
		}
		opened := false
		switch b[i] {
		case '"':
			i, _ = scanString(b, i+1)
		case '{', '[':
			if depth++; depth > depthMax {
				return -1
			}
			objects = objects<<1 | uint64(b[i]>>5&1) // '{' is 0x7b, '[' is 0x5b
			i = skipSpace(b, i+1)
			opened = true
		case 't':
			i = skipWord(b, i, "true")
		case 'f':
			i = skipWord(b, i, "false")
		case 'n':
			i = skipWord(b, i, "null")
		default:
			i = skipNumber(b, i)
		}
		if i < 0 {
			return -1
		}
		var done bool
		if i, objects, depth, done = unwind(b, i, containers{objects, depth, opened}); done || i < 0 {
			return i
		}
	}
}

// containers are the objects and arrays that are open around a position.
type containers struct {
	objects uint64
	depth   int
	opened  bool // the innermost has just been opened
}

// unwind goes from behind a value (or behind an opening bracket) to the next value; done is true if there is none.
func unwind(b []byte, i int, c containers) (next int, objects uint64, depth int, done bool) {
	for {
		if c.depth == 1 {
			return i, 0, 1, true
		}
		i = skipSpace(b, i)
		if i >= len(b) {
			return -1, 0, 0, true
		}
		object := c.objects&1 != 0
		closing := byte(']')
		if object {
			closing = '}'
		}
		switch {
		case b[i] == closing:
			c.objects >>= 1
			c.depth--
			c.opened = false
			i++
			continue
		case c.opened:
		case b[i] == ',':
			i = skipSpace(b, i+1)
		default:
			return -1, 0, 0, true
		}
		if object {
			if i = skipKey(b, i); i < 0 {
				return -1, 0, 0, true
			}
		}
		return i, c.objects, c.depth, false
	}
}

// skipKey returns the index of the value behind the key at i.
func skipKey(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	i, _ = scanString(b, i+1)
	if i < 0 {
		return -1
	}
	i = skipSpace(b, i)
	if i >= len(b) || b[i] != ':' {
		return -1
	}
	return skipSpace(b, i+1)
}

func skipWord(b []byte, i int, word string) int {
	if len(b)-i < len(word) || string(b[i:i+len(word)]) != word {
		return -1
	}
	return i + len(word)
}

// skipNumber holds a number against the grammar: no leading zeros, a digit around the point.
func skipNumber(b []byte, i int) int {
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i >= len(b):
		return -1
	case b[i] == '0':
		i++
	case b[i] >= '1' && b[i] <= '9':
		i = skipDigits(b, i)
	default:
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = atLeastOne(b, i+1); i < 0 {
			return -1
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		return atLeastOne(b, i)
	}
	return i
}

func skipDigits(b []byte, i int) int {
	for i < len(b) && b[i] >= '0' && b[i] <= '9' {
		i++
	}
	return i
}

func atLeastOne(b []byte, i int) int {
	if end := skipDigits(b, i); end > i {
		return end
	}
	return -1
}
