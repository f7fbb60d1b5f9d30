package bus

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// RedactURL shows no part of any password, and still shows the host.
func TestRedactURL(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "nats://127.0.0.1:4222": "nats://127.0.0.1:4222", "tls://a.example": "tls://a.example", "nats://[::1]:4222/": "nats://[::1]:4222/",
		"nats://user:secret@h:4222": "nats://xxxxx@h:4222", "nats://secret@h": "nats://xxxxx@h",
		"nats://u:secret@h1,nats://u:secret@h2": "nats://xxxxx@h1,nats://xxxxx@h2", "nats://u:secret@h1, nats://h2": "nats://xxxxx@h1,nats://h2",
		"nats://u:secret,nats://secret@h": "nats://xxxxx,nats://xxxxx@h", "http://u:secret@h": "(no URL)", "u:secret@h:1": "(no URL)",
		"nats://u:secret": "(no URL)", "secret": "(no URL)", "secret://secret@h": "(no URL)",
	} {
		if got := RedactURL(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	for _, before := range []string{"", "/", "?", "#", "%", ",", "@", ":", "//", "12/", "34?", "5#", "6,", " ", "://", "\r\n", "@/", "[", "%2"} {
		for _, after := range []string{"", "/x", "?x", "#x", ",x", "@", "/@", "://x", ",nats://x"} {
			if strings.Contains(before, "@") && strings.HasPrefix(after, ",nats") {
				continue // that is a list of two
			}
			url := "nats://user:" + before + "secret" + after + "@host.example:4222"
			if got := RedactURL(url); strings.Contains(got, "secret") || strings.Contains(got, "user") || !strings.Contains(got, "host.example:4222") {
				t.Errorf("%q is shown as %q", url, got)
			}
		}
	}
}

// A file with credentials is read at each connect, and its absence is an error.
func TestCredentials(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	if _, err := credentials(path); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	for text, works := range map[string]bool{"": false, " \n": false, "user:pa/ss?#%,word\r\n": true, "token": true, "-----BEGIN NATS USER JWT-----": true} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if list, err := credentials(path); (err == nil) != works || (len(list) == 1) != works {
			t.Errorf("%q: %v", text, err)
		}
	}
}
