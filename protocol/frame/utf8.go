package frame

import (
	"encoding/binary"
	"unicode/utf8"

	fastutf8 "github.com/bytedance/sonic/utf8"
)

// UTF8 checks text as it arrives, and fails at the first wrong byte. The zero UTF8 is ready.
//
// Owner: one goroutine.
type UTF8 struct {
	need uint8 // continuation bytes that must follow
	low  uint8 // bounds of the next one, 0: 0x80 to 0xbf
	high uint8
}

// wholesaleMin is the size from which checking at once with vector code pays.
const wholesaleMin = 64

// Feed takes the next piece and reports whether the text is valid so far.
func (u *UTF8) Feed(p []byte) bool {
	for u.need > 0 && len(p) > 0 {
		if !u.follow(p[0]) {
			return false
		}
		p = p[1:]
	}
	if len(p) >= wholesaleMin {
		cut := len(p) - tail(p)
		if !fastutf8.Validate(p[:cut]) {
			return false
		}
		p = p[cut:]
	}
	for len(p) > 0 {
		if len(p) >= 8 && binary.LittleEndian.Uint64(p)&0x8080808080808080 == 0 {
			p = p[8:]
			continue
		}
		b := p[0]
		p = p[1:]
		if b < utf8.RuneSelf {
			continue
		}
		if !u.lead(b) {
			return false
		}
		for u.need > 0 && len(p) > 0 {
			if !u.follow(p[0]) {
				return false
			}
			p = p[1:]
		}
	}
	return true
}

// Whole reports whether the text may end here.
func (u *UTF8) Whole() bool { return u.need == 0 }

// tail is the number of bytes at the end of p that may begin a character whose rest follows p.
func tail(p []byte) int {
	for n := 1; n <= utf8.UTFMax-1 && n <= len(p); n++ {
		if b := p[len(p)-n]; b >= 0xc0 {
			return n
		} else if b < utf8.RuneSelf {
			return 0
		}
	}
	return 0
}

// lead takes a character's first byte, and sets the range of the second one [RFC 3629 §4].
func (u *UTF8) lead(b byte) bool {
	u.low, u.high = 0x80, 0xbf
	switch {
	case b < 0xc2 || b > 0xf4:
		return false
	case b < 0xe0:
		u.need = 1
	case b < 0xf0:
		u.need = 2
		if b == 0xe0 {
			u.low = 0xa0
		} else if b == 0xed {
			u.high = 0x9f
		}
	default:
		u.need = 3
		if b == 0xf0 {
			u.low = 0x90
		} else if b == 0xf4 {
			u.high = 0x8f
		}
	}
	return true
}

func (u *UTF8) follow(b byte) bool {
	if b < u.low || b > u.high {
		return false
	}
	u.need--
	u.low, u.high = 0x80, 0xbf
	return true
}

// ValidUTF8 reports whether p is valid UTF-8 as a whole.
func ValidUTF8(p []byte) bool {
	if len(p) <= plainMax {
		p = notPlain(p)
	}
	var u UTF8
	return len(p) == 0 || u.Feed(p) && u.Whole()
}

// plainMax is the size up to which skipping ASCII in words of eight bytes beats vector code, whose call is expensive.
const plainMax = 512

// notPlain is p without the whole words of ASCII at its beginning.
func notPlain(p []byte) []byte {
	const high = 0x8080808080808080
	for len(p) >= 32 {
		a, b := binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])
		c, d := binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint64(p[24:])
		if (a|b|c|d)&high != 0 {
			return p
		}
		p = p[32:]
	}
	for len(p) >= 8 && binary.LittleEndian.Uint64(p)&high == 0 {
		p = p[8:]
	}
	return p
}
