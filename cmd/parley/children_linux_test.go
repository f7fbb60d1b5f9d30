package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/parleyd/parley/engine/api"
)

// natsServer starts a NATS server with JetStream and one user, and returns its port.
func natsServer(t *testing.T, user, password string) (port int) {
	t.Helper()
	o := &server.Options{}
	text := fmt.Sprintf("accounts {ONE: {jetstream: enabled, users: [{user: %q, password: %q}]}}", user, password)
	if err := o.ProcessConfigString(text); err != nil {
		t.Fatal(err)
	}
	o.Host, o.Port, o.JetStream, o.StoreDir, o.NoSigs, o.NoLog = "127.0.0.1", server.RANDOM_PORT, true, t.TempDir(), true, true
	s, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(patient) {
		t.Fatal("the NATS server does not start")
	}
	if _, err := fmt.Sscanf(s.ClientURL(), "nats://127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	return port
}

// childrenOf are the processes that a process has started.
func childrenOf(t *testing.T, pid int) (pids []string) {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		if text, err := os.ReadFile(list); err == nil {
			pids = append(pids, strings.Fields(string(text))...)
		}
	}
	return pids
}

// No child of a server has a secret in its arguments or its environment, wherever the operator has written the secrets.
func TestChildrenShowNoSecret(t *testing.T) {
	const busPassword, jwtSecret = "swordfish-of-the-bus", "a secret of tokens with many bytes, 0123456789"
	key, entry, err := api.CreateKey("shop")
	if err != nil {
		t.Fatal(err)
	}
	url := fmt.Sprintf("nats://ann:%s@127.0.0.1:%d", busPassword, natsServer(t, "ann", busPassword))
	secretFile := write(t, jwtSecret)
	inFile := write(t, fmt.Sprintf("bus_url: %s\nkeys:\n  - {id: shop, sha256: %s, scopes: [publish]}\n", url, entry.SHA256))
	for name, way := range map[string]struct {
		args []string
		env  []string
	}{
		"a file of its own":      {[]string{"--bus-url-file", write(t, url+"\n")}, []string{keyVariable + "=" + key}},
		"the variable":           {nil, []string{envPrefix + "BUS_URL=" + url, keyVariable + "=" + key}},
		"the configuration file": {[]string{"--config", inFile}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, pair := range way.env {
				variable, text, _ := strings.Cut(pair, "=")
				t.Setenv(variable, text)
			}
			_, admin := freeAddress(t)
			_, apiPort := freeAddress(t)
			r, stdout, _ := piped(t, nil, append([]string{"serve", "--port", "0", "--admin-port", admin, "--api-port", apiPort, "--processes", "2", "--loops", "1",
				"--auth", "required", "--jwt-secret-file", secretFile}, way.args...)...)
			r.hears(stdout)
			pids := childrenOf(t, r.cmd.Process.Pid)
			if len(pids) != 4 {
				t.Errorf("its children are %q, want two workers, the api process and the bus process, which has the sequencer", pids)
			}
			secrets := map[string]string{"the password of the bus": busPassword, "the secret of tokens": jwtSecret, "the key": key,
				"the key's secret": strings.TrimPrefix(key, "pk_shop_"), "the hash of the key": hashOf(key)}
			for _, pid := range pids {
				for _, file := range []string{"cmdline", "environ"} {
					text, err := os.ReadFile("/proc/" + pid + "/" + file)
					if err != nil || len(text) == 0 {
						t.Fatalf("%s of %s: %v", file, pid, err)
					}
					for what, secret := range secrets {
						if strings.Contains(string(text), secret) {
							t.Errorf("%s of process %s shows %s", file, pid, what)
						}
					}
				}
			}
			if status, body := r.page("/readyz"); status != http.StatusOK {
				t.Error(status, body)
			}
			r.stops()
		})
	}
}

func hashOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}
