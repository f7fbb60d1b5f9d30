package caller

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Target is the API's address, with the key and the secret for it.
//
// Owner: immutable.
type Target struct {
	Secret  []byte   // of tokens; nil: the server takes none
	Environ []string // for the server that is started
	addr    string
	key     string
}

// Sources say where a target's key and secret come from.
//
// Owner: the caller.
type Sources struct {
	URL, KeyFile, SecretFile string
	Spawned                  bool   // the server is started with Environ: what no file has is made
	Dir                      string // for what is made
}

// Find reads the files. Errors: a mistake in the sources, as a sentence for the user.
func Find(o Sources) (*Target, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return nil, fmt.Errorf("api: %q is no address of an API; give one like http://127.0.0.1:9092", o.URL)
	}
	t := &Target{addr: u.Host}
	if o.KeyFile != "" {
		text, err := os.ReadFile(o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("api-key-file: %w", err)
		}
		t.key = strings.TrimSpace(string(text))
	}
	if o.SecretFile != "" {
		if t.Secret, err = readSecret(o.SecretFile); err != nil {
			return nil, fmt.Errorf("jwt-secret-file: %w", err)
		}
	}
	if !o.Spawned {
		return t, nil
	}
	host, port, _ := net.SplitHostPort(u.Host)
	t.Environ = []string{"PARLEY_API_HOST=" + host, "PARLEY_API_PORT=" + port}
	if t.key == "" {
		t.key = "pk_verify_" + newSecret()
		t.Environ = append(t.Environ, "PARLEY_API_KEY="+t.key)
	}
	if t.Secret == nil {
		path := filepath.Join(o.Dir, "secret")
		t.Secret = []byte(newSecret())
		if err := os.WriteFile(path, t.Secret, 0o600); err != nil {
			return nil, fmt.Errorf("write secret of tokens: %w", err)
		}
		t.Environ = append(t.Environ, "PARLEY_AUTH=required", "PARLEY_JWT_SECRET_FILE="+path)
	}
	return t, nil
}

// newSecret is a text of 256 random bits.
func newSecret() string {
	b := make([]byte, 32)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}
