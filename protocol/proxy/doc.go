// Package proxy reads what proxies in front of the server say of a client: the header of the PROXY protocol, versions
// 1 and 2, and the header fields X-Forwarded-For, X-Real-IP and Forwarded [RFC 7239 §4].
//
// What it refuses to do: I/O, waiting, and believing anything by itself: whom to trust is the caller's word.
//
// Start reading at [Parse] for the protocol, at [Trust] and [Trust.Client] for the fields.
package proxy
