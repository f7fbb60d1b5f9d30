package proxy

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
)

// Header is the content of a header of the PROXY protocol.
type Header struct {
	// Source is the client's address; zero if the proxy speaks for itself (LOCAL), does not know the client (UNKNOWN), or
	// if the client has no IP address. Then the caller has only the address from the kernel.
	Source netip.AddrPort
}

// Fault is the fault of a header.
type Fault uint8

// Faults.
const (
	FaultNone      Fault = iota
	FaultMissing         // the input does not begin like a header
	FaultMalformed       // the input begins like a header and breaks its rules
	FaultTooLong         // longer than HeaderBytesMax
)

// String explains the fault to a person.
func (f Fault) String() string {
	switch f {
	case FaultNone:
		return "nothing is wrong"
	case FaultMissing:
		return "there is no PROXY protocol header"
	case FaultTooLong:
		return "the PROXY protocol header is too long"
	}
	return "the PROXY protocol header is malformed"
}

// HeaderBytesMax bounds a header. The specification's own bound for version 1 is 107 bytes. Version 2 could announce 64
// KiB, of which at most 216 bytes are addresses; the rest are extensions, which Parse skips.
const HeaderBytesMax = 4 << 10

const (
	textStart    = "PROXY "
	textBytesMax = 107
	binaryStart  = "\r\n\r\n\x00\r\nQUIT\n"
	binaryFixed  = len(binaryStart) + 4 // version and command, family, length
)

// Parse reads the header at the beginning of b. n is its length, 0 if it has not arrived whole: then the caller calls
// Parse again with more. Parse decides at the same byte, and the same way, however the bytes arrive. b is borrowed.
func Parse(b []byte) (h Header, n int, f Fault) {
	switch {
	case startsLike(b, binaryStart):
		return parseBinary(b)
	case startsLike(b, textStart):
		return parseText(b)
	}
	return h, 0, FaultMissing
}

// startsLike reports whether b and start agree as far as both go.
func startsLike(b []byte, start string) bool {
	n := min(len(b), len(start))
	return string(b[:n]) == start[:n]
}

// parseText reads version 1: a line of words.
func parseText(b []byte) (h Header, n int, f Fault) {
	end := bytes.IndexByte(b, '\n')
	switch {
	case end < 0 && len(b) < textBytesMax:
		return h, 0, FaultNone
	case end < 0 || end >= textBytesMax:
		return h, 0, FaultTooLong
	case end < len(textStart) || b[end-1] != '\r':
		return h, 0, FaultMalformed
	}
	line := b[len(textStart) : end-1]
	family, rest, _ := bytes.Cut(line, []byte(" "))
	switch string(family) {
	case "UNKNOWN": // the rest of the line is ignored
		return h, end + 1, FaultNone
	case "TCP4", "TCP6":
		if h.Source, f = parseWords(rest, string(family) == "TCP4"); f != FaultNone {
			return Header{}, 0, f
		}
		return h, end + 1, FaultNone
	}
	return h, 0, FaultMalformed
}

// parseWords reads source, destination, and their ports, each behind exactly one space.
func parseWords(rest []byte, four bool) (source netip.AddrPort, f Fault) {
	var words [4][]byte
	for i := range words {
		var more bool
		words[i], rest, more = bytes.Cut(rest, []byte(" "))
		if more != (i < len(words)-1) {
			return source, FaultMalformed
		}
	}
	from, fromOK := parseFamily(words[0], four)
	_, toOK := parseFamily(words[1], four)
	port, portOK := parsePort(words[2])
	_, otherOK := parsePort(words[3])
	if !fromOK || !toOK || !portOK || !otherOK {
		return source, FaultMalformed
	}
	return netip.AddrPortFrom(from, port), FaultNone
}

// parseFamily reads an address of one family.
func parseFamily(text []byte, four bool) (netip.Addr, bool) {
	a, err := netip.ParseAddr(string(text))
	return a.Unmap(), err == nil && a.Is4() == four && a.Zone() == ""
}

// parsePort reads a decimal number without leading zeros.
func parsePort(text []byte) (uint16, bool) {
	n, err := strconv.ParseUint(string(text), 10, 16)
	return uint16(n), err == nil && (text[0] != '0' || len(text) == 1)
}

// addressBytes is how long the addresses of each family are.
var addressBytes = [...]int{0: 0, familyFour: 12, familySix: 36, familyUnix: 216}

const (
	familyFour = 1
	familySix  = 2
	familyUnix = 3
	datagrams  = 2
)

// parseBinary reads version 2: fixed bytes, addresses, extensions.
func parseBinary(b []byte) (h Header, n int, f Fault) {
	if len(b) > 12 && (b[12]>>4 != 2 || b[12]&0xf > 1) {
		return h, 0, FaultMalformed
	}
	if len(b) > 13 && (b[13]>>4 > familyUnix || b[13]&0xf > datagrams) {
		return h, 0, FaultMalformed
	}
	if len(b) < binaryFixed {
		return h, 0, FaultNone
	}
	local, family, transport := b[12]&0xf == 0, int(b[13]>>4), b[13]&0xf
	length := int(binary.BigEndian.Uint16(b[14:]))
	n = binaryFixed + length
	switch {
	case n > HeaderBytesMax:
		return h, 0, FaultTooLong
	case !local && length < addressBytes[family]:
		return h, 0, FaultMalformed
	case len(b) < n:
		return h, 0, FaultNone
	case local || transport == 0: // the proxy's own connection, or one unknown to it
		return h, n, FaultNone
	}
	body := b[binaryFixed:n]
	switch family {
	case familyFour:
		h.Source = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), binary.BigEndian.Uint16(body[8:]))
	case familySix:
		h.Source = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)).Unmap(), binary.BigEndian.Uint16(body[32:]))
	}
	return h, n, FaultNone
}
