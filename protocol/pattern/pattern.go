// Package pattern matches names of rooms against patterns: * stands for any characters but ':', ** for any characters. The
// patterns of access tokens, of rules, of keys, and of the setting history are these.
//
// What it refuses to do: regular expressions, and anything whose cost an attacker can choose.
//
// Start reading at [Pattern].
package pattern

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of patterns.
const (
	SetMax   = 64  // in one token, or in one set
	bytesMax = 255 // a room's name has no more
	starsMax = 4   // in one pattern; ** counts as one
)

const userWord = "{user}"

type partKind uint8

const (
	literal  partKind = iota // the text itself
	segment                  // *: any characters but ':'
	anything                 // **: any characters
	user                     // {user}: the connection's own user
)

type part struct {
	kind  partKind
	text  string // of a literal
	leaps bool   // of a segment: no ':' can stand between the ** before it and itself
}

// Pattern is a compiled pattern of rooms' names: * stands for any characters but ':', ** for any characters, all else for
// itself. The zero Pattern matches no room. Owner: immutable after Parse.
type Pattern struct {
	prefix string // the literal at the beginning: most rooms differ there
	shape  shape
	parts  []part
}

// shape tells the common patterns, which need no search, from others.
type shape uint8

const (
	mixed   shape = iota
	exact         // the prefix alone
	piece         // the prefix and *
	subtree       // the prefix and **
)

// classify sets prefix and shape.
func (p *Pattern) classify() {
	rest := p.parts
	if rest[0].kind == literal {
		p.prefix, rest = rest[0].text, rest[1:]
	}
	switch {
	case len(rest) == 0:
		p.shape = exact
	case len(rest) == 1 && rest[0].kind == segment:
		p.shape = piece
	case len(rest) == 1 && rest[0].kind == anything:
		p.shape = subtree
	}
}

// Parse compiles a pattern: 1 to 255 bytes of UTF-8 without control characters, at most four stars, where ** counts
// as one. Any goroutine.
func Parse(text string) (Pattern, error) { return compile(text, false) }

// ParseFor is Parse for patterns of rules, which also know {user}. Any goroutine.
func ParseFor(text string) (Pattern, error) { return compile(text, true) }

// compile also knows {user} if users is set.
func compile(text string, users bool) (Pattern, error) {
	if err := CheckName(text, bytesMax); err != nil {
		return Pattern{}, fmt.Errorf("a pattern %w", err)
	}
	var p Pattern
	stars, leaps := 0, false
	for rest := text; rest != ""; {
		next, length := part{kind: literal}, 0
		switch {
		case strings.HasPrefix(rest, "***"):
			return Pattern{}, errors.New("a pattern has three stars in a row: write * or **")
		case strings.HasPrefix(rest, "**"):
			next, length = part{kind: anything}, 2
			stars, leaps = stars+1, true
		case rest[0] == '*':
			next, length = part{kind: segment, leaps: leaps}, 1
			stars++
		case users && strings.HasPrefix(rest, userWord):
			next, length = part{kind: user}, len(userWord)
			leaps = false
		default:
			length = literalEnd(rest, users)
			next.text = strings.Clone(rest[:length])
			leaps = leaps && !strings.Contains(next.text, ":")
		}
		p.parts, rest = append(p.parts, next), rest[length:]
	}
	if stars > starsMax {
		return Pattern{}, fmt.Errorf("a pattern has %d stars: %d are allowed (** counts as one)", stars, starsMax)
	}
	p.classify()
	return p, nil
}

// literalEnd is the length of the literal with which text begins.
func literalEnd(text string, users bool) int {
	end := len(text)
	if at := strings.IndexByte(text, '*'); at >= 0 {
		end = at
	}
	if at := strings.Index(text[:end], userWord); users && at >= 0 {
		end = at
	}
	return end
}

// Match reports whether a room's name matches. Any goroutine; it allocates nothing.
func (p Pattern) Match(room string) bool { return p.MatchFor(room, "") }

// MatchFor is Match that also gets the connection's user, whose name stands for itself: a star in it is a star. An empty user matches no
// pattern with {user}.
//
// Literals are placed as far left as they fit. Where the next literal does not fit, the last * takes one more character. No
// earlier * needs another try: the characters that it would take lie in the same piece between colons, so the later * can
// take them. At a ':' the last * gives up, and the last ** takes more: as far as that colon if it can, else one character.
// At the end of the name all is lost. So common patterns take one pass, and the worst that a pattern with colons can cost
// is bounded by the square of the name's length.
func (p Pattern) MatchFor(room, name string) bool {
	if len(p.parts) == 0 || !strings.HasPrefix(room, p.prefix) {
		return false
	}
	switch p.shape {
	case exact:
		return len(room) == len(p.prefix)
	case piece:
		return strings.IndexByte(room[len(p.prefix):], ':') < 0
	case subtree:
		return true
	}
	m := matcher{room: room, user: name, starNext: -1, wideNext: -1}
	for {
		if m.next == len(p.parts) {
			if m.at == len(room) {
				return true
			}
		} else if m.step(&p.parts[m.next]) {
			continue
		}
		if !m.retry(p.parts) {
			return false
		}
	}
}

// matcher is a match on its way.
//
// Owner: the goroutine that matches.
type matcher struct {
	room, user         string
	at, next           int // in the room's name, in the parts
	starAt, wideAt     int // where the last * and the last ** end
	starNext, wideNext int // the parts behind them; -1 if there is none
}

// step takes the next part, and reports whether it fits.
func (m *matcher) step(p *part) bool {
	text := p.text
	switch p.kind {
	case segment:
		m.next++
		m.starAt, m.starNext = m.at, m.next
		return true
	case anything:
		m.next++
		m.wideAt, m.wideNext, m.starNext = m.at, m.next, -1
		return true
	case user:
		if text = m.user; text == "" {
			return false
		}
	}
	if !strings.HasPrefix(m.room[m.at:], text) {
		return false
	}
	m.at, m.next = m.at+len(text), m.next+1
	return true
}

// retry gives the last star that can take it one more character, and reports whether there is one.
func (m *matcher) retry(parts []part) bool {
	if m.starNext >= 0 {
		if m.starAt == len(m.room) {
			return false
		}
		if m.room[m.starAt] != ':' {
			if m.starNext == len(parts) { // nothing follows: take the whole piece
				m.at = len(m.room)
				if colon := strings.IndexByte(m.room[m.starAt:], ':'); colon >= 0 {
					m.at = m.starAt + colon
				}
				m.starAt, m.next = m.at, m.starNext
				return true
			}
			m.starAt++
			m.at, m.next = m.starAt, m.starNext
			return true
		}
		if m.wideNext >= 0 && parts[m.starNext-1].leaps {
			m.wideAt = m.starAt
		}
	}
	if m.wideNext < 0 || m.wideAt == len(m.room) {
		return false
	}
	m.wideAt++
	if m.wideNext == len(parts) {
		m.wideAt = len(m.room)
	}
	m.at, m.next, m.starNext = m.wideAt, m.wideNext, -1
	return true
}

// Set is a set of patterns, at most SetMax. The zero value matches no room. Owner: immutable after ParseAll.
type Set struct {
	heads []Head
	list  []Pattern
}

// Head has the first eight bytes of a pattern's prefix: most patterns of a set are passed over by one comparison.
type Head struct{ mask, bytes uint64 }

// HeadOf is the head of a text. Any goroutine.
func HeadOf(text string) (h Head) {
	if len(text) >= 8 {
		return Head{^uint64(0), binary.LittleEndian.Uint64([]byte(text[:8]))}
	}
	for i := range len(text) {
		h.mask |= 0xff << (8 * i)
		h.bytes |= uint64(text[i]) << (8 * i)
	}
	return h
}

// Head is the head of the pattern's prefix. Any goroutine.
func (p Pattern) Head() Head { return HeadOf(p.prefix) }

// Fits reports whether a name whose head is room can begin with the text of h. Any goroutine.
func (h Head) Fits(room Head) bool { return room.bytes&h.mask == h.bytes }

// ParseAll compiles a set; its error names the place of the pattern at fault, from 0. Any goroutine.
func ParseAll(texts []string) (Set, error) {
	if len(texts) > SetMax {
		return Set{}, fmt.Errorf("%d patterns: %d are allowed", len(texts), SetMax)
	}
	var s Set
	for i, text := range texts {
		p, err := Parse(text)
		if err != nil {
			return Set{}, fmt.Errorf("pattern %d: %w", i, err)
		}
		s.list = append(s.list, p)
		s.heads = append(s.heads, HeadOf(p.prefix))
	}
	return s, nil
}

// Match reports whether any pattern of the set matches a room's name. Any goroutine; it allocates nothing.
func (s Set) Match(room string) bool {
	first := HeadOf(room)
	for i, h := range s.heads {
		if h.Fits(first) && s.list[i].Match(room) {
			return true
		}
	}
	return false
}

// Equal reports whether two sets have the same patterns in the same order. Any goroutine.
func (s Set) Equal(other Set) bool {
	return slices.EqualFunc(s.list, other.list, func(a, b Pattern) bool { return slices.Equal(a.parts, b.parts) })
}

// Hash writes the patterns to h: the same for sets that are equal. Any goroutine.
func (s Set) Hash(h *maphash.Hash) {
	for _, p := range s.list {
		for _, part := range p.parts {
			h.WriteByte(byte(part.kind))
			h.WriteString(part.text)
		}
		h.WriteByte(0xff) // no part's kind, and no byte of UTF-8
	}
}

// Len is the number of patterns.
func (s Set) Len() int { return len(s.list) }

// CheckName says in which way the name of a room or a user, or a pattern, is wrong. U+FFFD is refused because decoders put it
// in place of bytes that they cannot read: two different names would become one.
func CheckName(text string, most int) error {
	switch {
	case text == "":
		return errors.New("is empty")
	case len(text) > most:
		return fmt.Errorf("has %d bytes: %d are allowed", len(text), most)
	case !utf8.ValidString(text) || strings.ContainsRune(text, utf8.RuneError):
		return errors.New("is not valid UTF-8")
	case strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("has a control character")
	}
	return nil
}
