package docs

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// composed is what the tests look at of docs/examples/compose/compose.yaml.
type composed struct {
	Services map[string]struct {
		Build       struct{ Context, Dockerfile string }
		User        string
		Command     []string
		Environment map[string]string
		Secrets     []string
		Volumes     []string
		Networks    any
	}
	Networks map[string]struct {
		Internal bool
		IPAM     struct{ Config []struct{ Subnet string } }
	}
	Secrets map[string]struct{ File string }
}

// The containers of the example find what they mount, the settings of Parley are settings, and Parley trusts the address of nginx alone.
// Only nginx is reachable from outside.
func TestExampleOfContainers(t *testing.T) {
	dir := filepath.Join("examples", "compose")
	text, err := os.ReadFile(filepath.Join(dir, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c composed
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	parley, backend, nginx := c.Services["parley"], c.Services["backend"], c.Services["nginx"]
	if _, err := os.Stat(filepath.Join(dir, parley.Build.Context, parley.Build.Dockerfile)); parley.Build.Dockerfile == "" || err != nil {
		t.Errorf("%+v: %v", parley.Build, err)
	}
	for name, service := range c.Services {
		for _, volume := range service.Volumes {
			from, to, _ := strings.Cut(volume, ":")
			if _, err := os.Stat(filepath.Join(dir, from)); err != nil && from != "./certificates" || !strings.HasSuffix(to, ":ro") {
				t.Errorf("%s mounts %s: %v", name, volume, err)
			}
		}
		for _, secret := range service.Secrets {
			if c.Secrets[secret].File == "" {
				t.Errorf("%s has a secret %s that there is not", name, secret)
			}
		}
		if attached := networksOf(service.Networks); slices.Contains(attached, "outside") != (name == "nginx") || !c.Networks["inside"].Internal {
			t.Errorf("%s is in the networks %v: only nginx may be outside", name, attached)
		}
	}
	script := "/srv/" + backend.Command[1]
	if mounted := strings.Join(backend.Volumes, " "); !strings.Contains(mounted, ":"+filepath.Dir(script)+":ro") || parley.User != backend.User {
		t.Errorf("the backend starts %s, and mounts %s", script, mounted)
	}
	for name, value := range parley.Environment {
		checkVariables(t, name)
		if file, ok := strings.CutPrefix(value, "/run/secrets/"); ok && !slices.Contains(parley.Secrets, file) {
			t.Errorf("%s=%s: the container has no such secret", name, value)
		}
	}
	proxy := nginx.Networks.(map[string]any)["inside"].(map[string]any)["ipv4_address"]
	subnet := netip.MustParsePrefix(c.Networks["inside"].IPAM.Config[0].Subnet)
	if trusted := parley.Environment["PARLEY_TRUSTED_PROXIES"]; trusted != proxy || !subnet.Contains(netip.MustParseAddr(trusted)) {
		t.Errorf("Parley trusts %s, and nginx is %v in %v", trusted, proxy, subnet)
	}
}

// networksOf are the names of a service's networks, which stand in a list or as keys.
func networksOf(v any) (names []string) {
	switch v := v.(type) {
	case []any:
		for _, name := range v {
			names = append(names, name.(string))
		}
	case map[string]any:
		for name := range v {
			names = append(names, name)
		}
	}
	return names
}
