package handshake

import (
	"strings"
	"testing"
)

// Origins are compared by scheme, host and port [RFC 6454 §5]; null is one [RFC 6454 §6.1].
func TestOrigins(t *testing.T) {
	for _, c := range []struct{ list, origin string }{ // origin is admitted by list, and by no other list of this table but its twins
		{"https://Example.com", "https://example.com"}, {"https://example.com", "https://EXAMPLE.com:443"}, {"https://example.com:443/", "https://example.com"},
		{"http://localhost:8080", "http://localhost:8080"}, {"http://localhost:08081", "http://localhost:8081"},
		{"http://other.example:80", "http://other.example"},
		{"https://*.wild.example", "https://a.wild.example"}, {"https://*.wild.example", "https://A.b.wild.example:443"},
		{"https://*.wild.example:8443", "https://a.wild.example:8443"}, {"http://*.wild.example", "http://a.wild.example"},
		{"https://bücher.example", "https://xn--bcher-kva.example"}, {"https://BÜCHER.example:444", "https://xn--bcher-kva.example:444"},
		{"https://*.bücher.example", "https://a.xn--bcher-kva.example"}, {"https://例え。テスト", "https://xn--r8jz45g.xn--zckzah"},
		{"https://straße.example", "https://xn--strae-oqa.example"}, {"https://xn--fa-hia.example", "https://xn--fa-hia.example"},
		{"null", "null"}, {"file://", "file://"}, {"file:///", "file://"},
		{"capacitor://localhost", "capacitor://localhost"}, {"chrome-extension://abcdefgh", "chrome-extension://abcdefgh"}, {"https://my_host", "https://my_host"},
		{"http://[::1]:3000", "http://[::1]:3000"}, {"http://[2001:DB8:0:0:0:0:0:1]", "http://[2001:db8::1]"}, {"http://192.0.2.1", "http://192.0.2.1:80"},
		{"http://[::ffff:192.0.2.9]", "http://[::ffff:c000:209]"},
	} {
		o, err := NewOrigins([]string{c.list})
		if err != nil {
			t.Errorf("%s: %v", c.list, err)
			continue
		}
		if !o.Allow(c.origin) || !o.Allow("") {
			t.Errorf("%s does not admit %s", c.list, c.origin)
		}
	}
	o, err := NewOrigins([]string{"https://example.com", "http://localhost:8080", "https://*.wild.example", "https://*.xn--p1ai:99"})
	if err != nil {
		t.Fatal(err)
	}
	for _, origin := range []string{
		"http://example.com", "https://example.com:8443", "https://example.com.evil.org", "https://evil-example.com", "https://sub.example.com", "null",
		"http://localhost", "https://example.com/x", "https://example.com/", "https://user@example.com", "garbage", "file://", "*",
		"https://wild.example", "https://.wild.example", "https://evilwild.example", "https://a.wild.example.evil.org", "https://evil.org/.wild.example",
		"https://evil.org#.wild.example", "https://evil.org:1@a.wild.example", "https://a.wild.example:8443", "http://a.wild.example", "https://*.wild.example:1",
		"https://evil.org\\.wild.example", "https://evil.org?.wild.example", "https://evil.org%00.wild.example", "https://a b.wild.example", "https://example.com:", "https://example.com:+443",
		"https://a.xn--p1ai", "https://xn--p1ai:99",
	} {
		if o.Allow(origin) {
			t.Errorf("%q is admitted", origin)
		}
	}
	for _, list := range [][]string{nil, {"*"}, {"https://a.example", "*"}} {
		if all, err := NewOrigins(list); err != nil || !all.Allow("https://anybody.example") || !all.Allow("null") || !all.Allow("garbage") {
			t.Errorf("%q must admit every origin: %v", list, err)
		}
	}
}

// An entry that could never match is refused when it is configured; a scheme begins with a letter [RFC 3986 §3.1].
func TestNoOrigins(t *testing.T) {
	for _, text := range []string{
		"", " ", "example.com", "*.example.com", "https://", "https:///", "https://a/b", "https://a//", "https://a?x", "https://a#x", "https://u@a", "https://u:p@a", "https://a b",
		"https://a:abc", "https://a:", "https://a:0", "https://a:65536", "https://a:*", "https://*", "https://*.", "https://a.*.b", "https://*.*.b", "https://*b.example",
		"https://*.192.0.2.1", "https://*.[::1]", "https://::1", "https://[::1", "https://[::1]x", "https://[::1%25eth0]", "https://[192.0.2.1]", "https://1.2.3", "https://999.1.1.1",
		"wss://a.example", "ws://a.example", "://a", "1s://a", "Null", "https://a%62", "https://a\x00", "https://\"a\"", "//a", "https:a", "http//a",
		"https://a,https://b", "https://b\u00fccher example",
	} {
		if o, err := NewOrigins([]string{text}); err == nil {
			t.Errorf("%q passed: %+v", text, o)
		}
	}
}

// FuzzOrigins: an admitted origin has exactly the host of an entry, or a host below it; reading an entry twice changes
// nothing.
func FuzzOrigins(f *testing.F) {
	for _, s := range []string{"https://a.example", "https://x.b.example:444", "https://x@b.example", "https://[::1]", "null", "https://*.\u00fc"} {
		f.Add(s)
	}
	o, _ := NewOrigins([]string{"https://a.example", "https://*.b.example"})
	f.Fuzz(func(t *testing.T, text string) {
		if o.Allow(text) && text != "" {
			if lower := strings.TrimSuffix(strings.ToLower(text), ":443"); lower != "https://a.example" && !strings.HasSuffix(lower, ".b.example") && !strings.Contains(lower, ":0") {
				t.Fatalf("%q is admitted", text)
			}
		}
		if entry, wild, hint := readEntry(text); hint == "" && !wild {
			if again, _, hint := readEntry(entry.String()); hint != "" || again != entry {
				t.Fatalf("%q is %+v, and that is %+v (%s)", text, entry, again, hint)
			}
		}
	})
}
