package interop

import (
	"context"
	"net"
	"testing"

	gorilla "github.com/gorilla/websocket"
	"github.com/pires/go-proxyproto"
)

// Headers of an independent library, in both versions, with and without extensions, are understood.
func TestProxyProtocol(t *testing.T) {
	s := serve(t, "--trusted-proxies", "loopback", "--proxy-protocol")
	four := [2]net.Addr{&net.TCPAddr{IP: net.ParseIP("192.0.2.1"), Port: 8080}, &net.TCPAddr{IP: net.ParseIP("192.0.2.2"), Port: 443}}
	six := [2]net.Addr{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 8080}, &net.TCPAddr{IP: net.ParseIP("2001:db8::2"), Port: 443}}
	for _, row := range []struct {
		name    string
		version byte
		ends    [2]net.Addr
		tlvs    []proxyproto.TLV
		want    string
	}{
		{"v1 IPv4", 1, four, nil, "192.0.2.1"},
		{"v1 IPv6", 1, six, nil, "2001:db8::1"},
		{"v2 IPv4", 2, four, nil, "192.0.2.1"},
		{"v2 IPv6", 2, six, nil, "2001:db8::1"},
		{"v2 with extensions", 2, four, []proxyproto.TLV{
			{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: []byte("ws.example.com")},
			{Type: proxyproto.PP2_TYPE_UNIQUE_ID, Value: make([]byte, 128)},
			{Type: proxyproto.PP2_TYPE_NOOP, Value: make([]byte, 2000)}}, "192.0.2.1"},
	} {
		header := proxyproto.HeaderProxyFromAddrs(row.version, row.ends[0], row.ends[1])
		if err := header.SetTLVs(row.tlvs); err != nil {
			t.Fatal(row.name, err)
		}
		d := gorilla.Dialer{NetDialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err == nil {
				_, err = header.WriteTo(conn)
			}
			return conn, err
		}}
		conn, _, err := d.Dial(s.ws, nil)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		defer conn.Close()
		if got := (&person{t: t, c: &gorillaClient{conn}}).address(); got != row.want {
			t.Errorf("%s: the client is taken for %s, want %s", row.name, got, row.want)
		}
	}
}
