package proxy

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
)

// framed is a header of version 2.
func framed(command, family byte, body string) string {
	b := append([]byte(binaryStart), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(body)))) + body
}

const (
	four   = "\xc0\x00\x02\x01\xc0\x00\x02\x02\x1f\x90\x01\xbb"
	six    = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + "\x1f\x90\x01\xbb"
	mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x01" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02" + "\x1f\x90\x01\xbb"
	tlv    = "\x04\x00\x03abc"
)

var headers = []struct {
	name  string
	text  string
	want  string // the source, "" for none
	fault Fault
}{
	{"v1 TCP4", "PROXY TCP4 192.0.2.1 192.0.2.2 8080 443\r\n", "192.0.2.1:8080", FaultNone},
	{"v1 TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 8080 443\r\n", "[2001:db8::1]:8080", FaultNone},
	{"v1 TCP6 that carries IPv4", "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", "192.0.2.1:1", FaultNone},
	{"v1 the largest ports", "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255:65535", FaultNone},
	{"v1 port 0", "PROXY TCP4 192.0.2.1 192.0.2.2 0 0\r\n", "192.0.2.1:0", FaultNone},
	{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", "", FaultNone},
	{"v1 UNKNOWN at its longest", "PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n", "", FaultNone},
	{"v1 too long by one", "PROXY UNKNOWN " + strings.Repeat("f", 92) + "\r\n", "", FaultTooLong},
	{"v1 without an end", "PROXY UNKNOWN " + strings.Repeat("f", 500), "", FaultTooLong},
	{"v1 a lone LF", "PROXY TCP4 192.0.2.1 192.0.2.2 8080 443\n", "", FaultMalformed},
	{"v1 nothing said", "PROXY \r\n", "", FaultMalformed},
	{"v1 an unknown family", "PROXY TCP5 192.0.2.1 192.0.2.2 8080 443\r\n", "", FaultMalformed},
	{"v1 lower case", "proxy TCP4 192.0.2.1 192.0.2.2 8080 443\r\n", "", FaultMissing},
	{"v1 two spaces", "PROXY TCP4 192.0.2.1  192.0.2.2 8080 443\r\n", "", FaultMalformed},
	{"v1 a word too many", "PROXY TCP4 192.0.2.1 192.0.2.2 8080 443 1\r\n", "", FaultMalformed},
	{"v1 a word too few", "PROXY TCP4 192.0.2.1 192.0.2.2 8080\r\n", "", FaultMalformed},
	{"v1 the wrong family", "PROXY TCP4 2001:db8::1 192.0.2.2 8080 443\r\n", "", FaultMalformed},
	{"v1 the other wrong family", "PROXY TCP6 192.0.2.1 2001:db8::1 8080 443\r\n", "", FaultMalformed},
	{"v1 leading zeros", "PROXY TCP4 192.0.02.1 192.0.2.2 8080 443\r\n", "", FaultMalformed},
	{"v1 a zone", "PROXY TCP6 fe80::1%eth0 2001:db8::1 8080 443\r\n", "", FaultMalformed},
	{"v1 a port too large", "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n", "", FaultMalformed},
	{"v1 a port with a zero before it", "PROXY TCP4 192.0.2.1 192.0.2.2 08 443\r\n", "", FaultMalformed},
	{"v1 a port with a sign", "PROXY TCP4 192.0.2.1 192.0.2.2 +8 443\r\n", "", FaultMalformed},
	{"v1 a destination that is none", "PROXY TCP4 192.0.2.1 x 8080 443\r\n", "", FaultMalformed},
	{"v2 IPv4", framed(0x21, 0x11, four), "192.0.2.1:8080", FaultNone},
	{"v2 IPv4 and extensions", framed(0x21, 0x11, four+tlv), "192.0.2.1:8080", FaultNone},
	{"v2 IPv4 over UDP", framed(0x21, 0x12, four), "192.0.2.1:8080", FaultNone},
	{"v2 IPv6", framed(0x21, 0x21, six), "[2001:db8::1]:8080", FaultNone},
	{"v2 IPv6 that carries IPv4", framed(0x21, 0x21, mapped), "192.0.2.1:8080", FaultNone},
	{"v2 Unix", framed(0x21, 0x31, strings.Repeat("/", 216)), "", FaultNone},
	{"v2 unspecified", framed(0x21, 0x00, ""), "", FaultNone},
	{"v2 LOCAL", framed(0x20, 0x00, ""), "", FaultNone},
	{"v2 LOCAL with addresses", framed(0x20, 0x11, four), "", FaultNone},
	{"v2 as long as allowed", framed(0x21, 0x11, four+strings.Repeat("x", HeaderBytesMax-16-12)), "192.0.2.1:8080", FaultNone},
	{"v2 too long by one", framed(0x21, 0x11, four+strings.Repeat("x", HeaderBytesMax-16-11)), "", FaultTooLong},
	{"v2 version 1", framed(0x11, 0x11, four), "", FaultMalformed},
	{"v2 version 3", framed(0x31, 0x11, four), "", FaultMalformed},
	{"v2 an unknown command", framed(0x22, 0x11, four), "", FaultMalformed},
	{"v2 an unknown family", framed(0x21, 0x41, four), "", FaultMalformed},
	{"v2 an unknown transport", framed(0x21, 0x13, four), "", FaultMalformed},
	{"v2 IPv4 cut short", framed(0x21, 0x11, four[:11]), "", FaultMalformed},
	{"v2 IPv6 cut short", framed(0x21, 0x21, six[:35]), "", FaultMalformed},
	{"v2 Unix cut short", framed(0x21, 0x31, strings.Repeat("/", 215)), "", FaultMalformed},
	{"a request", "GET / HTTP/1.1\r\n", "", FaultMissing},
	{"TLS", "\x16\x03\x01\x02\x00", "", FaultMissing},
	{"half of each", "\r\n\r\n\x00\r\nPROXY ", "", FaultMissing},
}

const behind = "GET / HTTP/1.1\r\n\r\n"

// Each header is understood, whole and at every length that it may arrive in, and no byte behind it is taken.
func TestHeaders(t *testing.T) {
	for _, row := range headers {
		t.Run(row.name, func(t *testing.T) {
			var want netip.AddrPort
			if row.want != "" {
				want = netip.MustParseAddrPort(row.want)
			}
			end := 0
			if row.fault == FaultNone {
				end = len(row.text)
			}
			h, n, f := Parse([]byte(row.text + behind))
			if h.Source != want || n != end || f != row.fault {
				t.Fatalf("%v, %d of %d bytes, %v", h.Source, n, len(row.text), f)
			}
			for i := range len(row.text) {
				if _, n, f := Parse([]byte(row.text[:i])); n != 0 || f != FaultNone && f != row.fault {
					t.Fatalf("of its first %d bytes: length %d, %v", i, n, f)
				}
			}
			if row.fault != FaultNone && !strings.Contains(row.fault.String(), "PROXY protocol header") {
				t.Error(row.fault.String())
			}
		})
	}
}

// FuzzParse: any input is decided alike in any pieces, within the bound, and more bytes do not change a decision.
func FuzzParse(f *testing.F) {
	for _, row := range headers {
		f.Add([]byte(row.text), uint64(0x5555))
	}
	f.Fuzz(func(t *testing.T, input []byte, cuts uint64) {
		whole, length, fault := Parse(input)
		if length < 0 || length > min(len(input), HeaderBytesMax) || length > 0 && fault != FaultNone {
			t.Fatalf("length %d of %d, %v", length, len(input), fault)
		}
		if length == 0 && fault == FaultNone && len(input) >= HeaderBytesMax {
			t.Fatalf("undecided after %d bytes", len(input))
		}
		if whole.Source.Addr().Is4In6() || whole.Source.Addr().Zone() != "" {
			t.Fatalf("the source %v is not in its plain form", whole.Source)
		}
		for i := range len(input) {
			if cuts&(1<<(i%64)) == 0 {
				continue
			}
			h, n, f := Parse(input[:i])
			if n == 0 && f == FaultNone {
				continue
			}
			if h != whole || n != length || f != fault {
				t.Fatalf("of the first %d bytes: %v %d %v; of all: %v %d %v", i, h, n, f, whole, length, fault)
			}
		}
	})
}
