// Package proxy reads a client's address as proxies in front of the server tell it: in the header of the PROXY protocol,
// versions 1 and 2, or in the fields X-Forwarded-For, X-Real-IP and Forwarded [RFC 7239 §4].
//
// What it refuses to do: I/O, waiting, and trust by default: the caller says which peers to trust.
//
// Start reading at [Parse] for the protocol, at [Trust] and [Trust.Client] for the fields.
package proxy
