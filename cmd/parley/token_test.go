package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

func secretFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("a secret that nobody else knows: 0123456789\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func makeToken(t *testing.T, secret string, args ...string) string {
	t.Helper()
	code, out, stderr := parley(t, append([]string{"token", "--auth", "required", "--jwt-secret-file", secret}, args...)...)
	if code != exitOK {
		t.Fatal(stderr)
	}
	return strings.TrimSpace(out)
}

// A token that parley makes is good for check and for a server of several workers: the client has its user, rooms and rights on
// each. Without one, or with a bad one, it is let into nothing.
func TestTokens(t *testing.T) {
	secret := secretFile(t)
	good := makeToken(t, secret, "--user", "ann", "--join", "chat:*,user:ann", "--publish", "chat:*", "--auto", "user:ann", "--for", "1h")
	if code, out, stderr := parley(t, "token", "check", "--auth", "required", "--jwt-secret-file", secret, good); code != exitOK || !strings.Contains(out, "user ann") || !strings.Contains(out, "enters user:ann") {
		t.Error(code, out, stderr)
	}
	if code, _, stderr := parley(t, "token", "check", "--auth", "required", "--jwt-secret-file", secret, good+"x"); code != exitFailed || !strings.Contains(stderr, "refused") {
		t.Error(code, stderr)
	}
	_, admin := freeAddress(t)
	r, stdout, _ := piped(t, nil, "serve", "--port", "0", "--admin-port", admin, "--loops", "1", "--processes", "2", "--auth", "required",
		"--jwt-secret-file", secret, "--config", write(t, "rooms:\n  - {match: \"public:**\", join: anyone, publish: members}\n"))
	r.hears(stdout)
	for range 4 { // on both workers
		r.withToken(good)
	}
	expired := ws.Dialer{Header: ws.HandshakeHeaderHTTP(http.Header{"Authorization": {"Bearer " + makeToken(t, secret, "--user", "ann", "--for", "-1h")}})}
	conn, in, _, err := expired.Dial(t.Context(), "ws://"+r.ws+"/")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var from reader = conn
	if in != nil {
		from = in
	}
	_, _, err = wsutil.ReadData(struct {
		reader
		writer
	}{from, conn}, ws.StateClientSide)
	if closed, ok := err.(wsutil.ClosedError); !ok || closed.Code != engine.StatusTokenExpired {
		t.Error(err)
	}
	r.stops()
}

// withToken is a client that exchanges some messages.
func (r *running) withToken(token string) {
	r.t.Helper()
	d := ws.Dialer{Protocols: []string{"parley.v1", "parley.token." + token}}
	conn, in, handshake, err := d.Dial(context.Background(), "ws://"+r.ws+"/")
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	if handshake.Protocol != "parley.v1" {
		r.t.Errorf("the server speaks %q", handshake.Protocol)
	}
	conn.SetDeadline(time.Now().Add(patient))
	var from reader = conn
	if in != nil {
		from = in
	}
	next := func(typ string) map[string]any {
		for {
			raw, _, err := wsutil.ReadData(struct {
				reader
				writer
			}{from, conn}, ws.StateClientSide)
			if err != nil {
				r.t.Fatalf("waiting for %s: %v", typ, err)
			}
			var m map[string]any
			if json.Unmarshal(raw, &m) == nil && m["type"] == typ {
				return m
			}
		}
	}
	if m := next("connected"); m["user"] != "ann" {
		r.t.Error(m)
	}
	next("joined")
	for _, row := range [][3]string{{"join", "chat:1", "joined"}, {"join", "public:1", "joined"}, {"join", "other", "error"}, {"chat", "chat:1", "error"}} {
		if err := wsutil.WriteClientText(conn, fmt.Appendf(nil, `{"type":%q,"room":%q,"text":"hi"}`, row[0], row[1])); err != nil {
			r.t.Fatal(err)
		}
		if m := next(row[2]); row[0] == "chat" && m["code"] != "unknown_type" {
			r.t.Errorf("the demonstration's types are there: %v", m)
		}
	}
}

type reader interface{ Read([]byte) (int, error) }
type writer interface{ Write([]byte) (int, error) }

// A mistake in the settings of tokens, or in a rule, has its place and says what to do.
func TestTokenMistakes(t *testing.T) {
	secret := secretFile(t)
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("too short"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"auth: required\n":                                                           "parley.yaml:1: auth: tokens are verified with a secret",
		"auth: requird\n":                                                            "did you mean \"required\"?",
		"jwt_secret_file: " + secret + "\n":                                          "parley.yaml:1: jwt_secret_file: auth is off",
		"auth: required\njwt_secret_file: " + short + "\n":                           "parley.yaml:2: jwt_secret_file:",
		"auth: required\njwt_secret_file: /nowhere/secret\n":                         "parley.yaml:2: jwt_secret_file:",
		"auth: required\njwt_keys_file: " + secret + "\n":                            "parley.yaml:2: jwt_keys_file:",
		"auth: required\njwt_jwks_url: http://example.com/keys\njwt_audience: a\n":   "parley.yaml:2: jwt_jwks_url:",
		"auth: required\njwt_jwks_url: https://example.com/keys\n":                   "audience",
		"auth: required\njwt_secret_file: " + secret + "\njwt_algorithms: [none]\n":  "parley.yaml:3: jwt_algorithms:",
		"auth: required\njwt_secret_file: " + secret + "\njwt_algorithms: [ES256]\n": "parley.yaml:3: jwt_algorithms:",
		"auth: required\njwt_secret_file: " + secret + "\njwt_cookie: sid\n":         "parley.yaml:3: jwt_cookie: browsers send cookies",
		"rooms:\n  - {match: 'a*b*c*d*e*', join: anyone, publish: members}\n":        "parley.yaml:2: rooms: match:",
		"rooms:\n  - {match: a, join: backend, publish: members}\n":                  "parley.yaml:2: rooms: join: backend is not there yet",
		"rooms:\n  - match: a\n    join: anyone\n    publish: [members, token]\n":    "parley.yaml:4: rooms: publish:",
		"rooms:\n  - {match: a, joins: anyone, publish: members}\n":                  "there is no field \"joins\"; did you mean \"join\"?",
		"rooms:\n  - {match: a, publish: members}\n":                                 "parley.yaml:2: rooms: join: it is missing",
		"rooms: {match: a}\n":                                                        "parley.yaml:1: rooms: it is a list of rules",
	} {
		if code, _, stderr := parley(t, "check-config", write(t, text)); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: %d %s, wanted %s", text, code, stderr, want)
		}
	}
	for _, args := range [][]string{{"token", "--user", "a"}, {"token", "check"}, {"token", "check", "x"},
		{"token", "--auth", "required", "--jwt-secret-file", secret}, {"token", "--auth", "required", "--jwt-secret-file", secret, "--user", "a", "--join", "a*b*c*d*e*"},
		{"token", "--auth", "required", "--jwt-secret-file", secret, "--user", "a", "--auto", "x"}} {
		if code, out, stderr := parley(t, args...); code != exitUsage || stderr == "" {
			t.Error(args, code, out, stderr)
		}
	}
}
