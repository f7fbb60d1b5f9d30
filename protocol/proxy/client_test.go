package proxy

import (
	"net/netip"
	"strings"
	"testing"
)

func trust(t testing.TB, list ...string) *Trust {
	t.Helper()
	tr, err := NewTrust(list)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestTrust(t *testing.T) {
	for _, c := range []struct{ list, in, out string }{
		{"10.0.0.1", "10.0.0.1 ::ffff:10.0.0.1", "10.0.0.2 ::1"},
		{"::ffff:10.0.0.1", "10.0.0.1", "10.0.0.2"},
		{"10.0.0.0/8", "10.255.0.1", "11.0.0.1"},
		{"2001:db8::/32", "2001:db8::1", "2001:db9::1 10.0.0.1"},
		{"loopback", "127.0.0.1 127.9.9.9 ::1 ::ffff:127.0.0.1", "128.0.0.1 ::2"},
		{"private", "10.1.1.1 172.31.0.1 192.168.0.1 fd00::1", "172.32.0.1 8.8.8.8 fe80::1 127.0.0.1"},
		{"fe80::/10", "fe80::1%eth0", "fec0::1"},
		{"0.0.0.0/0", "8.8.8.8", "::1"},
	} {
		tr := trust(t, c.list)
		for _, a := range strings.Fields(c.in) {
			if !tr.Includes(netip.MustParseAddr(a)) {
				t.Errorf("%s does not include %s", c.list, a)
			}
		}
		for _, a := range strings.Fields(c.out) {
			if tr.Includes(netip.MustParseAddr(a)) {
				t.Errorf("%s includes %s", c.list, a)
			}
		}
		if tr.Includes(netip.Addr{}) {
			t.Errorf("%s includes a Unix socket", c.list)
		}
	}
	if !trust(t, "unix").Includes(netip.Addr{}) || !trust(t, "unix").Anybody() || trust(t).Anybody() || trust(t).Includes(netip.Addr{}) {
		t.Error("a Unix socket must be trusted if the list names it, and only then")
	}
	for text, want := range map[string]string{
		"nginx": "neither an address", "10.0.0.1/8": "write 10.0.0.0/8", "10.0.0.0/33": "no network",
		"fe80::1%eth0": "neither", "": "neither", "::ffff:10.0.0.0/104": "IPv4 network written as IPv6", "10.0.0.1:80": "neither",
	} {
		if _, err := NewTrust([]string{text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

var clients = []struct {
	name    string
	xff     string // several fields are separated by |
	real    string
	fwd     string
	want    string // "" for nobody
	ignored int
}{
	{"nothing", "", "", "", "", 0},
	{"one", "192.0.2.1", "", "", "192.0.2.1:0", 0},
	{"what the client forged stands left", "6.6.6.6, 192.0.2.1", "", "", "192.0.2.1:0", 0},
	{"through trusted ones", "6.6.6.6, 192.0.2.1, 10.0.0.7, 10.0.0.8", "", "", "192.0.2.1:0", 0},
	{"all trusted", "10.0.0.9, 10.0.0.7", "", "", "10.0.0.9:0", 0},
	{"several fields are one list", "6.6.6.6|192.0.2.1|10.0.0.7", "", "", "192.0.2.1:0", 0},
	{"spaces and empty elements", " 6.6.6.6 ,,\t192.0.2.1 , ,", "", "", "192.0.2.1:0", 0},
	{"only empty elements", ", ,", "", "", "", 1},
	{"a field that is empty", "", " ", "", "", 1},
	{"an empty field beside another", " ", "192.0.2.1", "", "192.0.2.1:0", 1},
	{"an empty Forwarded", "", "", "\t", "", 1},
	{"IPv6", "2001:db8::1", "", "", "[2001:db8::1]:0", 0},
	{"IPv6 in brackets", "[2001:db8::1]", "", "", "[2001:db8::1]:0", 0},
	{"ports", "6.6.6.6, [2001:db8::1]:99, 10.0.0.1:5", "", "", "[2001:db8::1]:99", 0},
	{"IPv4 with a port", "192.0.2.1:99", "", "", "192.0.2.1:99", 0},
	{"IPv4 in IPv6", "::ffff:192.0.2.1", "", "", "192.0.2.1:0", 0},
	{"trusted IPv4 in IPv6", "192.0.2.1, ::ffff:10.0.0.1", "", "", "192.0.2.1:0", 0},
	{"garbage", "unknown", "", "", "", 1},
	{"garbage ends the walk", "6.6.6.6, unknown", "", "", "", 1},
	{"garbage left of the client is not looked at", "x, 192.0.2.1", "", "", "192.0.2.1:0", 0},
	{"garbage behind a trusted one", "6.6.6.6, unknown, 10.0.0.7", "", "", "", 1},
	{"garbage, and another field", "unknown", "192.0.2.1", "", "192.0.2.1:0", 1},
	{"a zone", "fe80::1%eth0", "", "", "", 1},
	{"brackets around IPv4", "[192.0.2.1]", "", "", "", 1},
	{"an open bracket", "[2001:db8::1", "", "", "", 1},
	{"something behind the bracket", "[2001:db8::1]x", "", "", "", 1},
	{"quotes that are not closed", "\", 192.0.2.1", "", "", "192.0.2.1:0", 0},
	{"an element without end", strings.Repeat("1", 5000), "", "", "", 1},
	{"the seed's nginx", "", "192.0.2.1", "", "192.0.2.1:0", 0},
	{"the seed's nginx passes on what the client forged", "6.6.6.6", "192.0.2.1", "", "", 2},
	{"a proxy that passes on a forged X-Real-IP", "192.0.2.1", "6.6.6.6", "", "", 2},
	{"both agree", "6.6.6.6, 192.0.2.1", "192.0.2.1", "", "192.0.2.1:0", 0},
	{"X-Real-IP is the next proxy's", "192.0.2.1", "10.0.0.7", "", "192.0.2.1:0", 0},
	{"X-Forwarded-For ends at a trusted one", "10.0.0.7", "192.0.2.1", "", "192.0.2.1:0", 0},
	{"all three agree", "192.0.2.1", "192.0.2.1", "for=192.0.2.1", "192.0.2.1:0", 0},
	{"a forged Forwarded", "192.0.2.1", "", "for=6.6.6.6", "", 2},
	{"[RFC 7239 §4] for", "", "", "for=192.0.2.1", "192.0.2.1:0", 0},
	{"[RFC 7239 §4] parameters in any order and case", "", "", "proto=http; FOR=192.0.2.1;by=203.0.113.43", "192.0.2.1:0", 0},
	{"[RFC 7239 §4] quoted IPv6", "", "", `For="[2001:db8:cafe::17]:4711"`, "[2001:db8:cafe::17]:4711", 0},
	{"[RFC 7239 §6.3] a port that is a word", "", "", `for="192.0.2.1:_gazonk"`, "192.0.2.1:0", 0},
	{"[RFC 7239 §7.1] a list", "", "", `for=6.6.6.6, for="192.0.2.1";proto=https, for=10.0.0.1`, "192.0.2.1:0", 0},
	{"[RFC 9110 §5.6.1] empty elements", "", "", `for=192.0.2.1,, `, "192.0.2.1:0", 0},
	{"[RFC 7239 §6] unknown", "", "", "for=unknown", "", 1},
	{"[RFC 7239 §6.3] an obfuscated name", "", "", "for=6.6.6.6, for=_hidden", "", 1},
	{"commas and semicolons within quotes", "", "", `for=192.0.2.1;host="a;b,for=6.6.6.6"`, "192.0.2.1:0", 0},
	{"an escaped quote", "", "", `for=192.0.2.1;host="a\",for=6.6.6.6"`, "192.0.2.1:0", 0},
	{"a client's open quote", "", "", `for="6.6.6.6, for=192.0.2.1`, "192.0.2.1:0", 0},
	{"for twice", "", "", "for=6.6.6.6;for=192.0.2.1", "", 1},
	{"for nobody", "", "", "proto=https", "", 1},
	{"an empty for", "", "", "for=", "", 1},
	{"empty quotes", "", "", `for=""`, "", 1},
	{"one quote", "", "", `for="`, "", 1},
}

func values(text string) (list [][]byte) {
	if text == "" {
		return nil
	}
	for v := range strings.SplitSeq(text, "|") {
		list = append(list, []byte(v))
	}
	return list
}

func TestClients(t *testing.T) {
	tr := trust(t, "10.0.0.0/8")
	for _, row := range clients {
		t.Run(row.name, func(t *testing.T) {
			got, ignored := tr.Client(&Fields{ForwardedFor: values(row.xff), RealIP: values(row.real), Forwarded: values(row.fwd)})
			want := netip.AddrPort{}
			if row.want != "" {
				want = netip.MustParseAddrPort(row.want)
			}
			if got != want || ignored != row.ignored {
				t.Errorf("%v, %d ignored; want %v, %d", got, ignored, want, row.ignored)
			}
		})
	}
}

// FuzzClient: the address that the proxy appends counts, after any bytes of the client, in each field.
func FuzzClient(f *testing.F) {
	for _, row := range clients {
		f.Add(row.xff, row.fwd)
	}
	tr := trust(f, "10.0.0.0/8")
	appended := netip.MustParseAddrPort("192.0.2.1:0")
	f.Fuzz(func(t *testing.T, xff, fwd string) {
		for _, c := range []Fields{
			{ForwardedFor: [][]byte{[]byte(xff + ", 192.0.2.1")}},
			{ForwardedFor: [][]byte{[]byte(xff), []byte("192.0.2.1, 10.0.0.1")}},
			{Forwarded: [][]byte{[]byte(fwd + `, for="192.0.2.1";proto=http`)}},
			{ForwardedFor: [][]byte{[]byte(xff + ", 192.0.2.1")}, RealIP: [][]byte{[]byte("192.0.2.1")}},
		} {
			if got, ignored := tr.Client(&c); got != appended || ignored != 0 {
				t.Fatalf("%q: %v, %d ignored", c, got, ignored)
			}
		}
		got, _ := tr.Client(&Fields{ForwardedFor: [][]byte{[]byte(xff)}, Forwarded: [][]byte{[]byte(fwd)}})
		if got.Addr().Is4In6() || got.Addr().Zone() != "" {
			t.Fatalf("%v is not in its plain form", got)
		}
	})
}
