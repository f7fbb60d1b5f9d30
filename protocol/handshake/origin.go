package handshake

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// Origins is an allow-list of origins: scheme, host and port, each exactly [RFC 6454 §5].
//
// Owner: immutable.
type Origins struct {
	all   bool
	exact map[string]bool
	under []origin // host is the text behind the star: ".example.com"
}

const (
	originAny  = "*"
	originNull = "null" // sent by browsers for a page without an origin of its own [RFC 6454 §6.1]
)

// NewOrigins makes a list. An entry is an origin (https://example.com, https://example.com:8443), all hosts below a name
// (https://*.example.com, which is not example.com itself), null (pages without an origin: files, sandboxed frames of
// any site), file:// (web views that load files), or * for every origin. An empty list admits every origin, too. The
// error names the right form.
func NewOrigins(list []string) (*Origins, error) {
	o := &Origins{all: len(list) == 0, exact: make(map[string]bool, len(list))}
	for _, text := range list {
		switch text {
		case originAny:
			o.all = true
			continue
		case originNull:
			o.exact[originNull] = true
			continue
		}
		entry, wild, hint := readEntry(text)
		switch {
		case hint != "":
			return nil, fmt.Errorf("%q is no origin: %s; write scheme://host or scheme://host:port, without a path", text, hint)
		case wild:
			o.under = append(o.under, entry)
		default:
			o.exact[entry.String()] = true
		}
	}
	return o, nil
}

// Allow reports whether pages of an origin may connect. "" is a client that is not a browser: it is allowed, since
// it could claim any origin.
func (o *Origins) Allow(text string) bool {
	if o.all || text == "" {
		return true
	}
	if text == originNull {
		return o.exact[originNull]
	}
	from, hint := parseOrigin(text)
	if hint != "" {
		return false
	}
	if o.exact[from.String()] {
		return true
	}
	for _, u := range o.under {
		if from.scheme == u.scheme && from.port == u.port && len(from.host) > len(u.host) && strings.HasSuffix(from.host, u.host) {
			return true
		}
	}
	return false
}

// origin is an origin in the form in which browsers send it: lower case, no port that is the scheme's own.
type origin struct{ scheme, host, port string }

func (o origin) String() string {
	if o.port == "" {
		return o.scheme + "://" + o.host
	}
	return o.scheme + "://" + o.host + ":" + o.port
}

// readEntry reads an entry of the operator's list. It also takes a trailing slash, and a name in any script, which a
// browser would send in ASCII.
func readEntry(text string) (entry origin, wild bool, hint string) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found {
		return origin{}, false, "it has no scheme"
	}
	rest = strings.TrimSuffix(rest, "/")
	switch strings.ToLower(scheme) {
	case "ws", "wss":
		return origin{}, false, "an origin is where the page comes from, http or https, not where it connects to"
	}
	if rest, wild = strings.CutPrefix(rest, "*."); strings.Contains(rest, "*") {
		return origin{}, false, "a star stands for the first names of a host only: https://*.example.com"
	}
	host := rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host = rest[:i]
	}
	if !isASCII(host) {
		ascii, err := toASCII.ToASCII(host)
		if err != nil {
			return origin{}, false, "no domain has such a name"
		}
		rest = ascii + rest[len(host):]
	}
	entry, hint = parseOrigin(scheme + "://" + rest)
	if wild && hint == "" {
		if _, err := netip.ParseAddr(entry.host); err == nil || entry.host == "" || entry.host[0] == '[' {
			return origin{}, false, "a star stands before a name, not before an address"
		}
		entry.host = "." + entry.host
	}
	return entry, wild, hint
}

// toASCII writes names as browsers do [UTS 46].
var toASCII = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false), idna.BidiRule())

// ownPorts are the ports that browsers leave out.
var ownPorts = map[string]string{"http": "80", "https": "443"}

// parseOrigin reads an origin as browsers write it, in upper or lower case. A hint names the fault.
func parseOrigin(text string) (o origin, hint string) {
	scheme, rest, found := strings.Cut(text, "://")
	if !found || !isScheme(scheme) {
		return origin{}, "it has no scheme"
	}
	o.scheme = strings.ToLower(scheme)
	if rest == "" && o.scheme == "file" {
		return o, ""
	}
	if strings.ContainsAny(rest, "/?#\\") {
		return origin{}, "something follows the host"
	}
	if strings.Contains(rest, "@") {
		return origin{}, "a name of a user is no part of it"
	}
	host, port := rest, ""
	if i := strings.LastIndexByte(rest, ':'); i >= 0 && i > strings.LastIndexByte(rest, ']') {
		host = rest[:i]
		n, err := strconv.ParseUint(rest[i+1:], 10, 16)
		if err != nil || n == 0 || rest[i+1] == '+' {
			return origin{}, "its port is no number from 1 to 65535"
		}
		if port = strconv.FormatUint(n, 10); port != ownPorts[o.scheme] {
			o.port = port
		}
	}
	o.host, hint = parseOriginHost(host)
	return o, hint
}

// parseOriginHost writes a host as browsers do.
func parseOriginHost(host string) (text, hint string) {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !a.Is6() || a.Zone() != "" || !strings.HasSuffix(inner, "]") {
			return "", "the text in brackets is no IPv6 address"
		}
		if a.Is4In6() { // browsers write it in hexadecimal, netip does not
			b := a.As16()
			return fmt.Sprintf("[::ffff:%x:%x]", uint16(b[12])<<8|uint16(b[13]), uint16(b[14])<<8|uint16(b[15])), ""
		}
		return "[" + a.String() + "]", ""
	}
	if host == "" {
		return "", "it names no host"
	}
	if strings.Contains(host, ":") {
		return "", "an IPv6 address stands in brackets"
	}
	for i := range len(host) {
		if c := host[i]; !isAlphanumeric(c) && !strings.ContainsRune("-._~", rune(c)) {
			return "", fmt.Sprintf("no host has %q in its name", host[i:i+1])
		}
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last != "" && last[0] >= '0' && last[0] <= '9' && strings.Trim(last, "0123456789") == "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return "", "an IPv4 address has four numbers"
		}
	}
	return strings.ToLower(host), ""
}

// isScheme reports whether text is the name of a scheme: a letter, then letters, digits, plus, minus and dot
// [RFC 3986 §3.1].
func isScheme(text string) bool {
	for i := range len(text) {
		if c := text[i]; !isAlphanumeric(c) && (i == 0 || !strings.ContainsRune("+-.", rune(c))) {
			return false
		}
	}
	return text != "" && text[0] > '9'
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

func isASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return false
		}
	}
	return true
}
