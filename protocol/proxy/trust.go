package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Trust is the set of trusted peers. The zero Trust is empty.
type Trust struct {
	networks []netip.Prefix
	unix     bool
}

// named are the networks that a word stands for.
var named = map[string][]netip.Prefix{
	"loopback": {netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	"private": {netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7")},
}

// NewTrust reads addresses (10.0.0.1), networks (10.0.0.0/8), and the words loopback (127.0.0.0/8 and ::1), private (the
// networks of RFC 1918 and fc00::/7) and unix (peers on a Unix socket, which have no address). The error names the right
// form.
func NewTrust(list []string) (*Trust, error) {
	t := &Trust{}
	for _, text := range list {
		if text == "unix" {
			t.unix = true
			continue
		}
		if networks, ok := named[text]; ok {
			t.networks = append(t.networks, networks...)
			continue
		}
		network, err := parseNetwork(text)
		if err != nil {
			return nil, err
		}
		t.networks = append(t.networks, network)
	}
	return t, nil
}

func parseNetwork(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, fmt.Errorf("%q is neither an address nor a network; write 10.0.0.1, 10.0.0.0/8, loopback, private or unix", text)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	network, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, fmt.Errorf("%q is no network; write it like 10.0.0.0/8 or fd00::/8", text)
	case network.Addr().Is4In6():
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4 network written as IPv6; write it like 10.0.0.0/8", text)
	case network != network.Masked():
		return netip.Prefix{}, fmt.Errorf("%q is an address within a network; write %s for all of it", text, network.Masked())
	}
	return network, nil
}

// Anybody reports whether any peer is trusted.
func (t *Trust) Anybody() bool { return t.unix || len(t.networks) > 0 }

// Includes reports whether a peer is trusted. The zero address is that of a peer on a Unix socket.
func (t *Trust) Includes(a netip.Addr) bool {
	if !a.IsValid() {
		return t.unix
	}
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(t.networks, func(n netip.Prefix) bool { return n.Contains(a) })
}
