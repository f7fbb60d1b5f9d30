package main

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gobwas/ws/wsutil"
)

// Rules that a reload brings hold for all workers, also where there was none at the start, and for those that start later.
func TestFirstRulesByReload(t *testing.T) {
	for _, processes := range []string{"1", "3"} {
		t.Run(processes, func(t *testing.T) {
			file := write(t, "heartbeat_interval: 7\n")
			r, b, _ := serveAPI(t, processes, "--config", file)
			joins := func() bool {
				h, err := r.dialToken("")
				if err != nil {
					t.Fatal(err)
				}
				defer h.conn.Close()
				if err := wsutil.WriteClientText(h.conn, []byte(`{"type":"join","room":"closed:1"}`)); err != nil {
					t.Fatal(err)
				}
				for {
					text, _, err := h.next()
					if err != nil {
						t.Fatal(err)
					}
					if strings.Contains(text, `"joined"`) || strings.Contains(text, `"forbidden"`) {
						return strings.Contains(text, `"joined"`)
					}
				}
			}
			in, err := r.dialToken("")
			if err != nil {
				t.Fatal(err)
			}
			if err := wsutil.WriteClientText(in.conn, []byte(`{"type":"join","room":"closed:1"}`)); err != nil {
				t.Fatal(err)
			}
			r.eventually("a client is in", func() bool {
				return strings.Contains(b.must("/v1/publish", `{"room":"closed:1","data":1,"count":true}`), "1")
			})
			if err := os.WriteFile(file, []byte("rooms:\n  - {match: \"closed:*\", join: nobody, publish: nobody}\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			r.signal(syscall.SIGHUP)
			for text := ""; !strings.Contains(text, `"left"`); {
				if text, _, err = in.next(); err != nil {
					t.Fatal("the client stays in a closed room: ", err)
				}
			}
			r.eventually("no client joins", func() bool {
				for range 12 { // all workers
					if joins() {
						return false
					}
				}
				return true
			})
			if processes != "1" {
				r.signalRole("worker", syscall.SIGKILL)
				r.eventually("all workers are there again", func() bool { return len(r.readyWorkers()) == 3 })
				for range 12 {
					if joins() {
						t.Fatal("a worker that started later has no rules")
					}
				}
			}
			r.stops()
		})
	}
}

// A reload names every setting that it cannot change, and none besides. It reads the files of secrets again, also beside a URL of keys, and
// refuses what would be open beside the settings that stay.
func TestReloadOfTokens(t *testing.T) {
	secret := secretFile(t)
	tokens := "auth: required\njwt_audience: a\njwt_jwks_url: http://127.0.0.1:1/\njwt_cookie: c\norigins: [\"https://a.example\"]\n"
	was := loadedFrom(t, tokens+"jwt_secret_file: "+secret+"\n")
	was.keyURL = nil
	for text, want := range map[string]string{
		"auth: \"off\"\n": "auth examples jwt_audience jwt_cookie jwt_jwks_url jwt_secret_file",
		tokens + "jwt_leeway: 3\njwt_query: true\njwt_secret_file: " + secret + "\n": "jwt_leeway jwt_query",
	} {
		now := loadedFrom(t, text).own()
		var fixed []string
		for _, s := range table {
			if text, ok := was.own().Fixed[s.key]; ok && text != now.Fixed[s.key] {
				fixed = append(fixed, s.key)
			}
		}
		for _, key := range strings.Fields(want) {
			if !strings.Contains(strings.Join(fixed, " "), key) {
				t.Errorf("%q: %s is not named: %v", text, key, fixed)
			}
		}
		if len(fixed) != len(strings.Fields(want)) {
			t.Errorf("%q: %v, want %s", text, fixed, want)
		}
	}
	cmd := newServe()
	if err := cmd.ParseFlags([]string{"--config", write(t, "origins: [\"*\"]\n")}); err != nil {
		t.Fatal(err)
	}
	if _, err := reread(cmd, was); err == nil || !strings.Contains(err.Error(), "jwt_cookie") {
		t.Errorf("a cookie is taken from pages of all origins: %v", err)
	}
	v, _, err := was.verifier(true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(was.keyURL.Close)
	first := was.keyURL
	if again, _, err := was.verifier(true); err != nil || was.keyURL != first || again == v {
		t.Error("the keys at the URL are opened a second time: ", err)
	}
}

func loadedFrom(t *testing.T, text string) *settings {
	t.Helper()
	s, _ := loaded(t, "--config", write(t, text))
	return s
}
