package turn

import (
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/proxy"
)

// Behind a proxy the kernel knows the proxy only. Who connected is then what the proxy says, in a header of the PROXY
// protocol before the request or in fields of the request, and only where the proxy is one of those that the
// configuration trusts: from anybody else such words are the client's own. The address is settled before anybody but the
// loop has seen the connection, so that reading it needs no lock.

var refusalUntrusted = handshake.Refusal{Status: 403, Reason: "this port takes connections from its proxies only (proxy_protocol is on, and trusted_proxies does not name this address)"}

// preface takes bytes of the PROXY protocol's header and returns what follows it. All of the header that has come is
// gathered, at most HeaderBytesMax; what follows it lies in the chunk that ends it.
func (l *Loop) preface(c *Conn, chunk []byte) []byte {
	if !l.Ground.Trust.Includes(c.Remote) {
		l.Count[CountPrefacesRefused].Add(1)
		l.Refuse(c, refusalUntrusted)
		return nil
	}
	gathered, known := chunk, len(c.Buf)
	if known > 0 {
		c.Buf = append(c.Buf, chunk[:min(len(chunk), proxy.HeaderBytesMax-known)]...)
		gathered = c.Buf
	}
	header, n, fault := proxy.Parse(gathered)
	switch {
	case fault != proxy.FaultNone:
		l.Count[CountPrefacesRefused].Add(1)
		l.Refuse(c, handshake.Refusal{Status: 400, Reason: fault.String() + "; proxy_protocol is on, so the proxy must send one first"})
		return nil
	case n == 0:
		if known == 0 {
			c.Buf = l.gatherInput(nil, chunk)
		}
		return nil
	}
	if header.Source.IsValid() {
		c.SetRemote(header.Source)
	}
	l.freeInput(c)
	c.Phase = phaseHead
	return chunk[n-known:]
}

// RefusalForwarded is for requests whose client cannot be told.
var RefusalForwarded = handshake.Refusal{Status: 400, Reason: "the header fields of the proxy name two clients, or none that can be read; " +
	"if the proxy passes on fields that clients write, name the one that it sets itself in proxy_header"}

// TraceClient takes the word of a trusted peer for who is behind it. It reports false where the peer speaks for a client
// whom it does not name so that it can be believed: to take the peer's own address instead would let clients choose it.
func (l *Loop) TraceClient(c *Conn) bool {
	if !l.Ground.Trust.Includes(c.Remote) {
		return true
	}
	told, only := &l.told, l.Ground.Limits.ProxyHeader
	told.ForwardedFor, told.RealIP, told.Forwarded = told.ForwardedFor[:0], told.RealIP[:0], told.Forwarded[:0]
	for _, f := range l.request.Fields() {
		switch {
		case only != "" && !f.Is(only):
		case f.Is("X-Forwarded-For"):
			told.ForwardedFor = append(told.ForwardedFor, f.Value)
		case f.Is("X-Real-IP"):
			told.RealIP = append(told.RealIP, f.Value)
		case f.Is("Forwarded"):
			told.Forwarded = append(told.Forwarded, f.Value)
		}
	}
	client, ignored := l.Ground.Trust.Client(told)
	if ignored > 0 {
		l.Count[CountForwardedIgnored].Add(uint64(ignored))
	}
	if client.IsValid() {
		c.SetRemote(client)
	}
	return client.IsValid() || ignored == 0
}
