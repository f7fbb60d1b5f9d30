package turn

import (
	"github.com/parleyd/parley/protocol/handshake"
	"github.com/parleyd/parley/protocol/proxy"
)

// Behind a proxy the kernel knows only the proxy's address. The proxy names the client, in a header of the PROXY protocol
// before the request or in fields of the request. Only proxies in the configuration's list are believed: any other peer
// could name any address. The address is set before code outside the loop sees the connection, so that reading it needs no
// lock.

var refusalUntrusted = handshake.Refusal{Status: 403, Reason: "this port takes connections from its proxies only (proxy_protocol is on, and trusted_proxies does not name this address)"}

// preface takes bytes of the PROXY protocol's header and returns the bytes behind it. The header is gathered, at most
// HeaderBytesMax; the bytes behind it lie in the chunk that completes the header.
func (l *Loop) preface(c *Conn, chunk []byte) []byte {
	if !l.Ground.Trust.Includes(c.Remote) {
		l.Count[CountPrefacesRefused].Add(1)
		c.Refuse(refusalUntrusted)
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
		c.Refuse(handshake.Refusal{Status: 400, Reason: fault.String() + "; proxy_protocol is on, so the proxy must send one first"})
		return nil
	case n == 0:
		if known == 0 {
			c.Buf = l.gatherInput(nil, chunk)
		}
		return nil
	}
	if header.Source.IsValid() {
		c.SetRemote(header.Source)
		if l.Ground.Crowded(c) {
			c.Refuse(RefusalCrowded)
			return nil
		}
	}
	c.freeInput()
	c.Phase = phaseHead
	return chunk[n-known:]
}

// RefusalForwarded is for requests whose client is unknown.
var RefusalForwarded = handshake.Refusal{Status: 400, Reason: "the header fields of the proxy name two clients, or none that can be read; " +
	"if the proxy passes on fields that clients write, name the one that it sets itself in proxy_header"}

// TraceClient takes the client's address from the fields of a trusted proxy. It reports false if the proxy speaks for a
// client but does not name it in a form that can be trusted: to use the proxy's own address instead would let clients choose
// it.
func (c *Conn) TraceClient() bool {
	l := c.Loop
	if !l.Ground.Trust.Includes(c.Remote) {
		return true
	}
	fields, only := &l.forwarded, l.Ground.Limits.ProxyHeader
	fields.ForwardedFor, fields.RealIP, fields.Forwarded = fields.ForwardedFor[:0], fields.RealIP[:0], fields.Forwarded[:0]
	for _, f := range l.request.Fields() {
		switch {
		case only != "" && !f.Is(only):
		case f.Is("X-Forwarded-For"):
			fields.ForwardedFor = append(fields.ForwardedFor, f.Value)
		case f.Is("X-Real-IP"):
			fields.RealIP = append(fields.RealIP, f.Value)
		case f.Is("Forwarded"):
			fields.Forwarded = append(fields.Forwarded, f.Value)
		}
	}
	client, ignored := l.Ground.Trust.Client(fields)
	if ignored > 0 {
		l.Count[CountForwardedIgnored].Add(uint64(ignored))
	}
	if client.IsValid() {
		c.SetRemote(client)
	}
	return client.IsValid() || ignored == 0
}

// RefusalCrowded is for a connection whose address has as many as it may have.
var RefusalCrowded = handshake.Refusal{Status: 503, RetryAfter: 5,
	Reason: "this address has as many connections as one address may have (connections_per_address_max); try again later"}

// Crowded counts c among the connections of its client's address, from the moment at which that is known until LeaveCrowd,
// and reports whether it is one too many. The address is that of the peer when c is accepted, unless the peer is a trusted
// proxy; else the one that the proxy tells. A proxy that names no client is not counted, nor is a peer on a Unix socket. The
// acceptor calls Crowded before c is enrolled, then the loop.
func (g *Ground) Crowded(c *Conn) bool {
	switch {
	case g.Crowds.Max.Load() == 0, c.Has(flagCounted), !c.Remote.IsValid(), g.Trust != nil && g.Trust.Includes(c.Remote):
		return false
	case g.Crowds.Enter(c.Remote):
		c.Flags |= flagCounted
		return false
	}
	c.Loop.Count[CountCrowded].Add(1)
	return true
}

// LeaveCrowd is called once the descriptor of c is closed. Any goroutine.
func (g *Ground) LeaveCrowd(c *Conn) {
	if c.Has(flagCounted) {
		c.Flags &^= flagCounted
		g.Crowds.Leave(c.Remote)
	}
}
