package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// page is the text of a document.
func page(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The checklist of docs/SECURITY.md does what it says: its rule closes the rooms that no other rule names, its command makes a
// key, and the server warns of an open address, and refuses an API without a key there.
func TestSecurityChecklist(t *testing.T) {
	text := page(t, "docs/SECURITY.md")
	rule := regexp.MustCompile("`(\\{match: [^`]+\\})`").FindStringSubmatch(text)
	command := regexp.MustCompile("`parley (key create [^`]+)`").FindStringSubmatch(text)
	if rule == nil || command == nil {
		t.Fatal("docs/SECURITY.md has no rule, or no command that makes a key")
	}
	made := exec.Command("sh", "-c", binary+" "+command[1])
	if out, err := made.Output(); err != nil || !strings.HasPrefix(string(out), "pk_shop_") {
		t.Errorf("%s: %s, %v", command[1], out, err)
	}

	b := secretBackend(t)
	file := filepath.Join(b.dir, "parley.yaml")
	writeFile(t, file, "rooms:\n  - {match: \"chat:*\", join: token, publish: members}\n  - "+rule[1]+"\n")
	b.start("read", "--config", file, "--auth", "required", "--jwt-secret-file", b.secret)
	token, err := exec.Command(binary, "token", "--auth", "required", "--jwt-secret-file", b.secret, "--user", "42", "--join", "**", "--publish", "**").Output()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := b.bearer(t, strings.TrimSpace(string(token)))
	p.until("connected")
	p.say(`{"type":"join","room":"chat:1"}`)
	p.until("joined")
	p.say(`{"type":"join","room":"den"}`)
	if m := p.until("error"); m["code"] != "forbidden" {
		t.Errorf("a room without a rule of its own is answered %v", m)
	}

	check := exec.Command(binary, "check-config", "--host", "0.0.0.0")
	if out, err := check.CombinedOutput(); err != nil || !strings.Contains(string(out), "warning: host is 0.0.0.0 and origins is not set") {
		t.Errorf("check-config of an open address: %v\n%s", err, out)
	}
	open := launch(t, binary, "", "--api-host", "0.0.0.0", "--api-port", fmt.Sprint(freePort(t)))
	if code := open.exit(); code != 2 || !strings.Contains(open.out.String(), "and there is no key") {
		t.Errorf("an API without a key ends with %d: %s", code, open.out)
	}
}
