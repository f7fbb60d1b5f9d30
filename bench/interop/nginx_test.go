package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

// nginx is a real nginx, in a process of its own, with a configuration of docs/deploy.
type nginx struct {
	t       *testing.T
	cmd     *exec.Cmd
	address string // host:port
	command []string
}

// startNginx starts nginx with a file of docs/deploy in front of s. It replaces only the texts that differ by machine: the
// listener, certificates, names of files, and those in changes. Each must be there.
func startNginx(t *testing.T, name string, s *server, changes ...string) *nginx {
	t.Helper()
	program := need(t, "nginx")
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	selfSigned(t, dir)
	n := &nginx{t: t, address: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	conf := string(text)
	changes = append(changes, "listen 443", "listen "+n.address, "127.0.0.1:9090", strings.TrimPrefix(s.ws, "ws://"),
		"/path/to/", dir+"/", "/run/nginx.pid", dir+"/pid", "/var/log/nginx/", dir+"/", "user www-data;", "",
		"worker_rlimit_nofile 131072;", "", "worker_connections 65536;", "worker_connections 1000;", "worker_processes auto;", "worker_processes 2;")
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(conf, changes[i]) {
			t.Fatalf("%s holds no %q", name, changes[i])
		}
		conf = strings.ReplaceAll(conf, changes[i], changes[i+1])
	}
	n.run(program, filepath.Join(dir, name), conf)
	return n
}

// run starts nginx with a configuration, which it writes to path, and waits until it listens.
func (n *nginx) run(program, path, conf string) {
	n.t.Helper()
	dir := filepath.Dir(path)
	// The directories of nginx's buffers differ by machine, too.
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		conf = strings.Replace(conf, "http {\n", fmt.Sprintf("http {\n%s_temp_path %s/%s;\n", kind, dir, kind), 1)
	}
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.command = []string{program, "-e", filepath.Join(dir, "error.log"), "-c", path}
	if out, err := exec.Command(program, append(n.command[1:], "-t")...).CombinedOutput(); err != nil {
		n.t.Fatalf("nginx refuses %s: %v\n%s", path, err, out)
	}
	n.cmd = exec.Command(program, append(n.command[1:], "-g", "daemon off;")...)
	n.cmd.Stderr = os.Stderr
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		n.cmd.Process.Signal(syscall.SIGTERM)
		n.cmd.Wait()
		if log, _ := os.ReadFile(filepath.Join(dir, "error.log")); n.t.Failed() && len(log) > 0 {
			n.t.Logf("nginx says:\n%s", log)
		}
	})
	eventually(n.t, "nginx listens", func() bool {
		conn, err := net.Dial("tcp", n.address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// selfSigned writes a certificate and its key.
func selfSigned(t *testing.T, dir string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"ws.example.com"}}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// dial connects from an address of this machine, over TLS, with header fields of the client's making.
func (n *nginx) dial(from string, fields http.Header) *person {
	n.t.Helper()
	conn, _, err := n.dialer(from).Dial("wss://"+n.address+"/", fields)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	p := &person{t: n.t, c: &gorillaClient{conn}}
	p.id = p.until("connected")["connection_id"].(string)
	p.token = p.until("reconnect_token")["token"].(string)
	return p
}

// dialer dials over TLS from an address of this machine.
func (n *nginx) dialer(from string) *gorilla.Dialer {
	return &gorilla.Dialer{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, NetDialContext: dialFrom(from)}
}

func dialFrom(from string) func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext
}

// address is the client's address as the server sees it.
func (p *person) address() string {
	p.t.Helper()
	p.say(`{"type":"whoami"}`)
	return p.until("whoami")["remote_address"].(string)
}

var forged = http.Header{"X-Forwarded-For": {"6.6.6.6"}, "X-Real-Ip": {"6.6.6.6"}, "Forwarded": {"for=6.6.6.6"}}

// With the configuration in docs/deploy on real nginx, the upgrade passes over TLS, a plain request gets a plain answer, and
// the server sees the client's true address, also if the client claims another.
func TestNginx(t *testing.T) {
	s := serve(t, "--trusted-proxies", "127.0.0.1")
	n := startNginx(t, "nginx.conf", s)
	for from, fields := range map[string]http.Header{"127.0.0.2": nil, "127.0.0.3": forged, "127.0.0.1": forged} {
		if got := n.dial(from, fields).address(); got != from {
			t.Errorf("a client at %s that sends %v is taken for %s", from, fields, got)
		}
	}
	conn, _, err := (&gorilla.Dialer{NetDialContext: dialFrom("127.0.0.4")}).Dial(s.ws, forged)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := (&person{t: t, c: &gorillaClient{conn}}).address(); got != "127.0.0.4" {
		t.Errorf("a client that passes by the proxy is taken for %s", got)
	}
	plain := &http.Client{Timeout: patient, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	response, err := plain.Get("https://" + n.address + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusUpgradeRequired || !strings.Contains(string(body), "WebSocket") {
		t.Errorf("a plain request is answered with %s: %s", response.Status, body)
	}
}

// With HTTP/2 at the proxy, as many operators have for their pages, a plain request gets its answer (a field such as Upgrade
// would end it in a protocol error), with the map of docs/deploy and with the constant of the original document. A WebSocket
// is upgraded beside it, by HTTP/1.1.
func TestNginxHTTP2(t *testing.T) {
	for _, changes := range [][]string{nil, {"$connection_upgrade;", "\"upgrade\";"}} {
		s := serve(t, "--trusted-proxies", "127.0.0.1")
		n := startNginx(t, "nginx.conf", s, append(changes, "listen 443 ssl;", "listen 443 ssl http2;")...)
		plain := &http.Client{Timeout: patient, Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
			request, err := http.NewRequestWithContext(t.Context(), method, "https://"+n.address+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := plain.Do(request)
			if err != nil {
				t.Fatalf("%s over HTTP/2: %v", method, err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			wants := map[string]int{http.MethodGet: http.StatusUpgradeRequired}[method]
			if wants == 0 {
				wants = http.StatusMethodNotAllowed
			}
			if err != nil || response.ProtoMajor != 2 || response.StatusCode != wants || method != http.MethodHead && !strings.Contains(string(body), "WebSocket") {
				t.Errorf("%s is answered with %s %s: %s (%v)", method, response.Proto, response.Status, body, err)
			}
		}
		if got := n.dial("127.0.0.2", nil).address(); got != "127.0.0.2" {
			t.Errorf("the client is taken for %s", got)
		}
	}
}

// The cookies of a single sign-on pass: 12 KiB, in one and in many; a head above the limit gets a readable answer.
func TestNginxCookies(t *testing.T) {
	s := serve(t, "--trusted-proxies", "127.0.0.1")
	n := startNginx(t, "nginx.conf", s)
	chunk := strings.Repeat("x", 3000)
	for name, cookie := range map[string]string{"one": "sso=" + strings.Repeat("x", 12<<10), "four": "a=" + chunk + "; b=" + chunk + "; c=" + chunk + "; d=" + chunk} {
		if got := n.dial("127.0.0.2", http.Header{"Cookie": {cookie}}).address(); got != "127.0.0.2" {
			t.Errorf("%s: the client is taken for %s", name, got)
		}
	}
	_, response, err := n.dialer("127.0.0.2").Dial("wss://"+n.address+"/", http.Header{"Cookie": {"sso=" + strings.Repeat("x", 20<<10)}})
	if err == nil || response == nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("more than both take: %v", err)
	}
	if _, response, err := gorilla.DefaultDialer.Dial(s.ws, http.Header{"Cookie": {"sso=" + strings.Repeat("x", 20<<10)}}); err == nil || response == nil || response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("more than the server takes: %v", err)
	}
}

// The configuration of the seed sets X-Real-IP. A client that claims another address besides is refused; if proxy_header
// names the field, the server ignores the claim.
func TestNginxOfTheSeed(t *testing.T) {
	t.Parallel()
	s := serve(t, "--trusted-proxies", "127.0.0.1")
	n := startNginx(t, "nginx.conf", s,
		"proxy_set_header X-Forwarded-For $remote_addr;", "", "proxy_set_header Forwarded \"\";", "", "$connection_upgrade;", "\"upgrade\";")
	if got := n.dial("127.0.0.2", nil).address(); got != "127.0.0.2" {
		t.Errorf("the client is taken for %s", got)
	}
	for field, value := range map[string]string{"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6"} {
		_, response, err := n.dialer("127.0.0.2").Dial("wss://"+n.address+"/", http.Header{field: {value}})
		if err == nil || response == nil || response.StatusCode != http.StatusBadRequest {
			t.Errorf("a client that forges %s: %v", field, err)
		}
	}
	for _, value := range []string{"127.0.0.1", "?", "6.6.6.6, 127.0.0.1, ?"} { // no field names a client
		if got := n.dial("127.0.0.2", http.Header{"X-Forwarded-For": {value}}).address(); got != "127.0.0.2" {
			t.Errorf("a client that writes X-Forwarded-For: %s is taken for %s", value, got)
		}
	}
	if ignored := s.stats("forwarded_ignored"); ignored == 0 {
		t.Error("the contradiction is not counted")
	}
	s = serve(t, "--trusted-proxies", "127.0.0.1", "--proxy-header", "x-real-ip")
	n = startNginx(t, "nginx.conf", s,
		"proxy_set_header X-Forwarded-For $remote_addr;", "", "proxy_set_header Forwarded \"\";", "", "$connection_upgrade;", "\"upgrade\";")
	if got := n.dial("127.0.0.2", forged).address(); got != "127.0.0.2" {
		t.Errorf("with proxy_header the client is taken for %s", got)
	}
}

// A silent client outlives the proxy's read timeout: heartbeats pass both ways.
func TestNginxIdle(t *testing.T) {
	s := serve(t, "--trusted-proxies", "127.0.0.1", "--heartbeat-interval", "1", "--heartbeat-timeout", "3")
	n := startNginx(t, "nginx.conf", s, "proxy_read_timeout 75s", "proxy_read_timeout 2s", "proxy_send_timeout 75s", "proxy_send_timeout 2s")
	p, started := n.dial("127.0.0.2", nil), time.Now()
	for time.Since(started) < 5*time.Second {
		p.until("ping") // reading answers the protocol's PING
	}
	if got := p.address(); got != "127.0.0.2" {
		t.Error(got)
	}
}

// needStream skips if nginx has no stream module; if all clients are required, that is a failure.
func needStream(t *testing.T) {
	t.Helper()
	modules, _ := filepath.Glob("/etc/nginx/modules-enabled/*stream*")
	if len(modules) > 0 {
		return
	}
	if os.Getenv("REQUIRE_ALL_CLIENTS") == "1" {
		t.Fatal("nginx's stream module is missing, and REQUIRE_ALL_CLIENTS=1 requires it")
	}
	t.Skip("nginx's stream module is missing")
}

// Over the stream module the address travels in a header of the PROXY protocol; a client that bypasses the proxy is refused.
func TestNginxStream(t *testing.T) {
	needStream(t)
	s := serve(t, "--trusted-proxies", "127.0.0.1", "--proxy-protocol")
	n := startNginx(t, "nginx-stream.conf", s)
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		if got := n.dial(from, forged).address(); got != from {
			t.Errorf("a client at %s is taken for %s", from, got)
		}
	}
	for from, want := range map[string]int{"127.0.0.1": 400, "127.0.0.2": 403} {
		_, response, err := (&gorilla.Dialer{NetDialContext: dialFrom(from)}).Dial(s.ws, nil)
		if err == nil || response == nil || response.StatusCode != want {
			t.Errorf("without a header, from %s: %v, %v; want %d", from, response, err, want)
		}
	}
}
