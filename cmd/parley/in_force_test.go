package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// The API shows each setting in force, after a reload too, and no secret.
func TestConfigInForce(t *testing.T) {
	for _, processes := range []string{"1", "2"} {
		t.Run(processes, func(t *testing.T) {
			secret := secretFile(t)
			text := "heartbeat_interval: 7\nheartbeat_timeout: 60\nrooms:\n  - {match: \"public:**\", join: anyone, publish: members}\n"
			file := write(t, text)
			r, b, _ := serveAPI(t, processes, "--auth", "optional", "--jwt-secret-file", secret, "--config", file)
			ask := func() (shown struct {
				Settings map[string]any
				Rooms    []struct{ Match string }
				Keys     []map[string]any
			}) {
				t.Helper()
				status, answer := b.request(http.MethodGet, "/v1/config", "Accept", "application/json", "")
				if err := json.Unmarshal([]byte(answer), &shown); err != nil || status != http.StatusOK {
					t.Fatal(status, answer, err)
				}
				for _, hidden := range []string{b.key, "nobody else knows", "sha256"} {
					if strings.Contains(answer, hidden) {
						t.Errorf("%q is in the answer", hidden)
					}
				}
				return shown
			}
			shown := ask()
			for key, want := range map[string]any{"heartbeat_interval": 7.0, "auth": "optional", "jwt_secret_file": secret, "api_host": "127.0.0.1", "show_users": true, "log_level": "info"} {
				if shown.Settings[key] != want {
					t.Errorf("%s is %v, want %v", key, shown.Settings[key], want)
				}
			}
			if len(shown.Settings) != len(table) || len(shown.Rooms) != 1 || len(shown.Keys) != 1 || shown.Keys[0]["id"] != "run" {
				t.Errorf("%+v", shown)
			}
			text = strings.ReplaceAll(text, "interval: 7", "interval: 9") + "  - {match: \"x\", join: nobody, publish: nobody}\nlog_level: warn\nshow_users: false\n"
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			r.signal(syscall.SIGHUP)
			r.eventually("the reload is shown", func() bool {
				now := ask()
				return now.Settings["heartbeat_interval"] == 9.0 && now.Settings["log_level"] == "warn" && now.Settings["show_users"] == false && len(now.Rooms) == 2
			})
			r.stops()
		})
	}
}
