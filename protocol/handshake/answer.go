package handshake

import (
	"cmp"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
)

// Refusal is the reason for refusing to upgrade a request. The zero Refusal means that the request is upgraded.
//
// Owner: the caller.
type Refusal struct {
	Status     int    // of HTTP
	Reason     string // the fault and its remedy, for the body
	RetryAfter int    // seconds; 0 for none
	Bodiless   bool   // the request was a HEAD: its answer has no body [RFC 9110 §9.3.2]
	Proxied    bool   // a proxy passed the request on: the answer omits Upgrade, which an HTTP/2 connection must not carry
}

// acceptGUID is hashed together with the key [RFC 6455 §4.2.2].
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// AcceptKey is the value of Sec-WebSocket-Accept for a key.
func AcceptKey(key []byte) (accept [28]byte) {
	var buf [keySize + len(acceptGUID)]byte
	n := copy(buf[:keySize], key)
	n += copy(buf[n:], acceptGUID)
	sum := sha1.Sum(buf[:n])
	base64.StdEncoding.Encode(accept[:], sum[:])
	return accept
}

// Accept is the content of the response that upgrades a request.
type Accept struct {
	Key        []byte
	Protocol   string // "" for none
	Extensions []byte // the value of Sec-WebSocket-Extensions; nil for none
}

// AppendSwitch appends the response that switches protocols [RFC 6455 §4.2.2].
func AppendSwitch(dst []byte, a Accept) []byte {
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	accept := AcceptKey(a.Key)
	dst = append(dst, accept[:]...)
	if a.Protocol != "" {
		dst = append(append(dst, "\r\nSec-WebSocket-Protocol: "...), a.Protocol...)
	}
	if len(a.Extensions) > 0 {
		dst = append(append(dst, "\r\nSec-WebSocket-Extensions: "...), a.Extensions...)
	}
	return append(dst, "\r\n\r\n"...)
}

// AppendRefusal appends a response that tells the reason and closes the connection.
func AppendRefusal(dst []byte, r Refusal) []byte {
	body := strings.ToValidUTF8(r.Reason, "?")
	dst = append(strconv.AppendInt(append(dst, "HTTP/1.1 "...), int64(r.Status), 10), ' ')
	dst = append(dst, http.StatusText(r.Status)...)
	dst = append(dst, "\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)+1), 10)
	if r.Status == http.StatusUpgradeRequired && !r.Proxied {
		dst = append(dst, "\r\nConnection: close, Upgrade\r\nUpgrade: websocket"...) // [RFC 9110 §15.5.22]
	} else {
		dst = append(dst, "\r\nConnection: close"...)
	}
	switch r.Status {
	case http.StatusMethodNotAllowed:
		dst = append(dst, "\r\nAllow: GET"...)
	case http.StatusUpgradeRequired:
		dst = append(dst, "\r\nSec-WebSocket-Version: 13"...)
	case http.StatusServiceUnavailable:
		r.RetryAfter = cmp.Or(r.RetryAfter, 5)
	case http.StatusUnauthorized:
		dst = append(dst, "\r\nWWW-Authenticate: Bearer"...)
	}
	if r.RetryAfter > 0 {
		dst = strconv.AppendInt(append(dst, "\r\nRetry-After: "...), int64(r.RetryAfter), 10)
	}
	dst = append(dst, "\r\n\r\n"...)
	if r.Bodiless {
		return dst
	}
	return append(append(dst, body...), '\n')
}

// SelectProtocol picks the first subprotocol of spoken that is offered, "" if none is.
func SelectProtocol(offered, spoken []string) string {
	for _, s := range spoken {
		for _, o := range offered {
			if o == s {
				return s
			}
		}
	}
	return ""
}
