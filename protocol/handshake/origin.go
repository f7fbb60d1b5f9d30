package handshake

import (
	"fmt"
	"net/url"
	"strings"
)

// Origins is an allow-list of origins: scheme, host and port, each exactly [RFC 6454 §5].
//
// Owner: immutable.
type Origins struct{ allowed map[string]bool }

// NewOrigins makes a list. An empty one admits every origin.
func NewOrigins(list []string) (*Origins, error) {
	o := &Origins{allowed: make(map[string]bool, len(list))}
	for _, text := range list {
		origin, ok := normalise(text)
		if !ok {
			return nil, fmt.Errorf("%q is no origin; write scheme://host or scheme://host:port, without a path", text)
		}
		o.allowed[origin] = true
	}
	return o, nil
}

// Allow reports whether pages of an origin may connect. "" is a client that is no browser: it may, since it
// could claim any origin.
func (o *Origins) Allow(origin string) bool {
	if len(o.allowed) == 0 || origin == "" {
		return true
	}
	origin, ok := normalise(origin)
	return ok && o.allowed[origin]
}

// normalise writes an origin in lower case and without its scheme's own port.
func normalise(text string) (string, bool) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", false
	}
	scheme, host, port := strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()
	if scheme == "http" && port == "80" || scheme == "https" && port == "443" {
		port = ""
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" {
		host += ":" + port
	}
	return scheme + "://" + host, true
}
