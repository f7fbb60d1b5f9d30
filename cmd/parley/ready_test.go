package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// keySet is a JWK set of one new key.
func keySet(t *testing.T) string {
	t.Helper()
	pair, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: pair.Public(), KeyID: "a", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// page reads a page of the admin listener.
func (r *running) page(path string) (status int, body string) {
	r.t.Helper()
	answer, err := http.Get("http://" + r.admin + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// verifying starts a server whose tokens are verified with the keys at an address.
func verifying(t *testing.T, processes, address string) *running {
	t.Helper()
	_, admin := freeAddress(t)
	r, stdout, _ := piped(t, nil, "serve", "--port", "0", "--admin-port", admin, "--processes", processes, "--auth", "required",
		"--jwt-jwks-url", "http://"+address+"/keys", "--jwt-audience", "chat")
	return r.hears(stdout)
}

// Until the keys of tokens are there, /readyz says why not, newcomers get 503, and the server is healthy all the same; then all is well.
func TestReadyWithKeys(t *testing.T) {
	set := keySet(t)
	for _, processes := range []string{"1", "3"} {
		for name, begin := range map[string]func(t *testing.T) (address, says string, come func()){
			"away": func(t *testing.T) (string, string, func()) {
				address, _ := freeAddress(t)
				return address, "connection refused", func() {
					l, err := net.Listen("tcp", address)
					if err != nil {
						t.Fatal(err)
					}
					issuer := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, set) })}
					go issuer.Serve(l)
					t.Cleanup(func() { issuer.Close() })
				}
			},
			"slow": func(t *testing.T) (string, string, func()) {
				come := make(chan struct{})
				return issuer(t, func(w http.ResponseWriter) {
					<-come
					io.WriteString(w, set)
				}), "the keys at jwt_jwks_url", func() { close(come) }
			},
			"malformed": func(t *testing.T) (string, string, func()) {
				come := make(chan struct{})
				return issuer(t, func(w http.ResponseWriter) {
					select {
					case <-come:
						io.WriteString(w, set)
					default:
						io.WriteString(w, `{"keys":[{"kty":`)
					}
				}), "could not be read yet", func() { close(come) }
			},
		} {
			t.Run(name+"/"+processes, func(t *testing.T) {
				t.Parallel()
				address, says, come := begin(t)
				r := verifying(t, processes, address)
				r.eventually("it says why it is not ready", func() bool {
					status, body := r.page("/readyz")
					if status == http.StatusOK {
						t.Fatal("it is ready without keys")
					}
					return status == http.StatusServiceUnavailable && strings.Contains(body, says)
				})
				if !r.healthy() || r.admits("https://a.example") {
					t.Error("it is not healthy, or it admits a client")
				}
				come()
				r.eventually("it is ready", func() bool { status, body := r.page("/readyz"); return status == 200 && body == "ready\n" })
				if !r.admits("https://a.example") {
					t.Error("it admits no client")
				}
				if _, body := r.page("/metrics"); !strings.Contains(body, "\nparley_keys_age_seconds ") {
					t.Error("the age of the keys is no metric")
				}
				r.stops()
			})
		}
	}
}

// issuer is the address of a server of keys.
func issuer(t *testing.T, answer func(w http.ResponseWriter)) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w) }))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// A server of several workers is ready while one serves newcomers, and not any more once it is told to stop.
func TestReadyWithoutTokens(t *testing.T) {
	_, admin := freeAddress(t)
	r, stdout, _ := piped(t, nil, "serve", "--port", "0", "--admin-port", admin, "--processes", "2")
	r.hears(stdout)
	r.eventually("it is ready", func() bool { status, _ := r.page("/readyz"); return status == 200 })
	if _, body := r.page("/metrics"); !strings.Contains(body, "\nparley_keys_age_seconds 0\n") {
		t.Error("keys that there are not have an age")
	}
	r.stops()
}

// That every client may connect stands in the ready line, in the status and in the metrics; where it may not, none of them says so.
func TestAuthIsSaid(t *testing.T) {
	for _, processes := range []string{"1", "2"} {
		for auth, metric := range map[string]string{"off": "0", "optional": "1", "required": "2"} {
			t.Run(processes+" "+auth, func(t *testing.T) {
				flags := []string{"serve", "--port", "0", "--loops", "1", "--processes", processes, "--auth", auth}
				if auth != "off" {
					flags = append(flags, "--jwt-secret-file", secretFile(t))
				}
				_, admin := freeAddress(t)
				r, stdout, _ := piped(t, nil, append(flags, "--admin-port", admin)...)
				line, _ := stdout.ReadString('\n')
				r.admin = "127.0.0.1:" + admin
				said := func(text string) bool { return strings.Contains(text, "auth is off: every client may connect") }
				r.eventually("the metric is there", func() bool {
					_, body := r.page("/metrics")
					return strings.Contains(body, "\nparley_auth "+metric+"\n")
				})
				report, err := ask(t.Context(), "http://"+r.admin+"/stats")
				if err != nil {
					t.Fatal(err)
				}
				var status strings.Builder
				report.write(&status, false, time.Now())
				if said(line) != (auth == "off") || said(status.String()) != (auth == "off") {
					t.Errorf("ready line: %s\nstatus: %s", line, &status)
				}
				r.stops()
			})
		}
	}
}
