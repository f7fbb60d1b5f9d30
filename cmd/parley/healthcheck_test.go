package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// check runs healthcheck as the process would.
func check(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, wrong bytes.Buffer
	code = run(t.Context(), append([]string{"healthcheck"}, args...), &out, &wrong)
	return code, out.String(), wrong.String()
}

// healthcheck finds a server by its settings and by its URL, and reports whether it is well or gone.
func TestHealthcheck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	ctx, stop := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--port", "0", "--admin-port", port, "--admin-host", "0.0.0.0"}, in, io.Discard)
	}()
	if _, err := out.Read(make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--admin-port", port, "--admin-host", "0.0.0.0"}, {"http://127.0.0.1:" + port}, {"http://127.0.0.1:" + port + "/healthz"}} {
		if code, stdout, stderr := check(t, args...); code != exitOK || stdout != "ok\n" {
			t.Errorf("%v: %d %q %q", args, code, stdout, stderr)
		}
	}
	if code, _, stderr := check(t, "http://127.0.0.1:"+port+"/nowhere"); code != exitFailed || !strings.Contains(stderr, "404") {
		t.Error(code, stderr)
	}
	stop()
	if code := <-ended; code != exitOK {
		t.Fatal(code)
	}
	if code, _, stderr := check(t, "--admin-port", port); code != exitFailed || !strings.Contains(stderr, "ask for health") {
		t.Error(code, stderr)
	}
}

// A server whose answer is not 200 is not well.
func TestHealthcheckOfTheUnwell(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "a loop has not taken a turn in time", http.StatusServiceUnavailable)
	}))
	defer s.Close()
	if code, _, stderr := check(t, s.URL); code != exitFailed || !strings.Contains(stderr, "503") || !strings.Contains(stderr, "a turn in time") {
		t.Error(code, stderr)
	}
	for _, args := range [][]string{{"127.0.0.1:9091"}, {"--admin-port", "0"}, {"http://a", "http://b"}} {
		if code, _, stderr := check(t, args...); code != exitUsage || stderr == "" {
			t.Error(args, code, stderr)
		}
	}
}
