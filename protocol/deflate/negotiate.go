// Package deflate is permessage-deflate, RFC 7692: the agreement in the handshake, compressing whole
// messages, and inflating them within a bound.
//
// The compressor is klauspost/compress. By default neither side keeps a context between messages: then a
// connection costs no memory while it idles, and a broadcast is compressed once for all.
//
// What it refuses to do: frames, I/O, and inflating beyond its caller's limit.
//
// Start reading at [Negotiate], [Shrink] and [Inflate].
package deflate

import (
	"bytes"
	"strconv"

	"github.com/gobwas/httphead"
)

// Options are the server's settings.
type Options struct {
	ContextTakeover bool // keep both contexts between messages, if the client's offer allows it
}

// Params are the parameters that both sides have agreed on.
//
// Owner: immutable.
type Params struct {
	ServerNoContext bool
	ClientNoContext bool
	ServerBits      uint8 // our window is 2^ServerBits bytes; 8 to 15
	ClientBits      uint8
	tellServerBits  bool
	tellClientBits  bool
}

const (
	extension = "permessage-deflate"
	bitsMin   = 8
	bitsMax   = 15
)

// Negotiate takes the values of Sec-WebSocket-Extensions and accepts the first valid offer [RFC 7692 §5]. Offers with
// unknown, doubled or impossible parameters are declined [RFC 7692 §7.1]. ok is false if no offer is left: the
// connection goes on without compression.
func Negotiate(offers []byte, o Options) (p Params, ok bool) {
	if !bytes.Contains(offers, []byte(extension)) {
		return Params{}, false
	}
	options, _ := httphead.ParseOptions(offers, nil)
	for _, offer := range options {
		if string(offer.Name) != extension {
			continue
		}
		if p, ok := accept(offer, o); ok {
			return p, true
		}
	}
	return Params{}, false
}

// accept answers one offer; ok is false if the offer is declined.
func accept(offer httphead.Option, o Options) (p Params, ok bool) {
	p = Params{ServerBits: bitsMax, ClientBits: bitsMax, ServerNoContext: !o.ContextTakeover, ClientNoContext: !o.ContextTakeover}
	seen := map[string]bool{}
	ok = true
	offer.Parameters.ForEach(func(key, value []byte) bool {
		name := string(key)
		ok = ok && !seen[name]
		seen[name] = true
		switch name {
		case "server_no_context_takeover": // [RFC 7692 §7.1.1.1]
			p.ServerNoContext = true
			ok = ok && len(value) == 0
		case "client_no_context_takeover": // [RFC 7692 §7.1.1.2]
			p.ClientNoContext = true
			ok = ok && len(value) == 0
		case "server_max_window_bits": // [RFC 7692 §7.1.2.1]
			bits, valid := windowBits(value)
			p.ServerBits, p.tellServerBits = bits, true
			ok = ok && valid
		case "client_max_window_bits": // [RFC 7692 §7.1.2.2]; without a value it permits us to ask for a window
			if len(value) > 0 {
				bits, valid := windowBits(value)
				p.ClientBits, p.tellClientBits = bits, true
				ok = ok && valid
			}
		default:
			ok = false
		}
		return ok
	})
	if p.ServerBits < bitsMax {
		p.ServerNoContext = true // a Shrinker refers back by up to a whole window of 32 KiB
	}
	return p, ok
}

// windowBits reads 8 to 15, without leading zeros [RFC 7692 §7.1.2].
func windowBits(value []byte) (uint8, bool) {
	n, err := strconv.Atoi(string(value))
	if err != nil || n < bitsMin || n > bitsMax || value[0] == '0' || value[0] == '+' {
		return bitsMax, false
	}
	return uint8(n), true
}

// Append appends the value of the response's Sec-WebSocket-Extensions.
func (p Params) Append(dst []byte) []byte {
	dst = append(dst, extension...)
	if p.ServerNoContext {
		dst = append(dst, "; server_no_context_takeover"...)
	}
	if p.ClientNoContext {
		dst = append(dst, "; client_no_context_takeover"...)
	}
	if p.tellServerBits {
		dst = strconv.AppendUint(append(dst, "; server_max_window_bits="...), uint64(p.ServerBits), 10)
	}
	if p.tellClientBits {
		dst = strconv.AppendUint(append(dst, "; client_max_window_bits="...), uint64(p.ClientBits), 10)
	}
	return dst
}
