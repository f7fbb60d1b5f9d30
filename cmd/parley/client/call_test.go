package client

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

// A server that accepts and never answers is given up.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	was := caller.Timeout
	caller.Timeout = 20 * time.Millisecond
	defer func() { caller.Timeout = was }()
	at := &place{base: &url.URL{Scheme: "http", Host: l.Addr().String()}}
	_, err = at.post(t.Context(), "/v1/publish", []byte("{}"))
	if end, ok := errors.AsType[Error](err); !ok || end.Code != Unreachable || !strings.Contains(err.Error(), "may have done what was asked") {
		t.Error(err)
	}
}
