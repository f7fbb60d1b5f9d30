package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var (
	yamlBlock    = regexp.MustCompile("(?ms)^( *)```yaml\n(.*?)^ *```$")
	neededFile   = regexp.MustCompile(`(_file: *)/\S+`)
	terminalLine = regexp.MustCompile(`(?m)^    \$ (.*)$`)
)

// Each configuration in YAML that a page shows is one that the server takes.
func TestSettingsOfPages(t *testing.T) {
	secret := secretFile(t)
	all := readPages(t)
	all["planted"] = "```yaml\nport: many\n```"
	refused, n := []string{}, 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, block := range yamlBlock.FindAllStringSubmatch(all[name], -1) {
			n++
			text := strings.ReplaceAll("\n"+block[2], "\n"+block[1], "\n")
			file := write(t, neededFile.ReplaceAllString(text, "${1}"+secret))
			if code, _, stderr := parley(t, "check-config", file); code != exitOK {
				refused = append(refused, name+": "+stderr)
			}
		}
	}
	if len(refused) == 0 || !strings.HasPrefix(refused[len(refused)-1], "planted") {
		t.Error("a planted mistake goes unnoticed: the rule does not run")
	}
	for _, fault := range refused[:max(0, len(refused)-1)] {
		t.Error(fault)
	}
	if n < 5 {
		t.Errorf("only %d configurations found: the search is wrong", n)
	}
}

// The commands of docs/tokens.md make a secret, a server and a token, and its claims are ones that the server takes.
func TestTokensPage(t *testing.T) {
	page := readPages(t)["docs/tokens.md"]
	t.Chdir(t.TempDir())
	t.Setenv("PARLEY_PORT", "0")
	t.Setenv("PARLEY_ADMIN_PORT", "0")
	t.Setenv("PARLEY_API_PORT", "0")
	lines := terminalLine.FindAllStringSubmatch(page, -1)
	if len(lines) != 3 || !strings.HasPrefix(lines[0][1], "openssl ") {
		t.Fatalf("docs/tokens.md has other commands: %q", lines)
	}
	if _, err := exec.LookPath("openssl"); err != nil && os.Getenv("REQUIRE_ALL_CLIENTS") == "" {
		t.Skip("openssl is not installed")
	}
	if out, err := exec.Command("sh", "-c", lines[0][1]).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v %s", lines[0][1], err, out)
	}
	token := ""
	for _, line := range lines[1:] {
		code, out, stderr := parley(t, arguments(strings.TrimPrefix(line[1], "parley "))...)
		if code != exitOK {
			t.Fatalf("%s: %s", line[1], stderr)
		}
		token = strings.TrimSpace(out)
	}
	check := []string{"token", "check", "--auth", "required", "--jwt-secret-file", "secret"}
	if code, out, stderr := parley(t, append(check, token)...); code != exitOK || !strings.HasPrefix(out, "user 42, ") {
		t.Error(out, stderr)
	}

	claims := regexp.MustCompile("(?s)```json\n(.*?)\n```").FindStringSubmatch(page)
	if claims == nil {
		t.Fatal("docs/tokens.md has no claims")
	}
	good := regexp.MustCompile(`"exp":\d+`).ReplaceAllString(claims[1], fmt.Sprintf(`"exp":%d`, time.Now().Add(time.Hour).Unix()))
	code, out, stderr := parley(t, append(check, "--json", sign(t, "secret", good))...)
	var found struct {
		User       string
		Auto       []string
		Attributes map[string]string
	}
	if err := json.Unmarshal([]byte(out), &found); code != exitOK || err != nil || found.User != "42" || !slices.Equal(found.Auto, []string{"user:42"}) || found.Attributes["name"] != "Ann" {
		t.Errorf("%s %s %v", out, stderr, err)
	}
	if code, _, stderr := parley(t, append(check, sign(t, "secret", strings.Replace(good, `"join"`, `"jion"`, 1)))...); code != exitFailed || !strings.Contains(stderr, "jion") {
		t.Errorf("a field that is not known ends with %d, %s", code, stderr)
	}
}

// sign makes a token with HS256, without a library that could know better.
func sign(t *testing.T, file, claims string) string {
	t.Helper()
	secret, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sum := hmac.New(sha256.New, []byte(strings.TrimSuffix(string(secret), "\n")))
	sum.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(sum.Sum(nil))
}

// The table of processes in docs/operating.md has the columns and the lines that parley status prints.
func TestStatusOfPage(t *testing.T) {
	_, shown, _ := strings.Cut(readPages(t)["docs/operating.md"], "    $ parley status")
	shown, _, _ = strings.Cut(shown, "\n\nThe exit code")
	var r report
	if err := json.Unmarshal([]byte(`{"url":"http://127.0.0.1:9091","health":"ok","stats":{"workers":[{"index":0,"state":"ready","restarts":1}],"bus_process":{"state":"ready"}}}`), &r); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := r.write(&out, false, time.Now()); err != nil {
		t.Fatal(err)
	}
	shape := func(text string) string { // what stays of a line without numbers and times
		text = regexp.MustCompile(`\b\d+[dhms\d]*\b`).ReplaceAllString(text, "0")
		return strings.Join(strings.Fields(text), " ")
	}
	n := 0
	lines := strings.Split(shown, "\n")
	for _, printed := range strings.Split(out.String(), "\n") {
		if fields := strings.Fields(printed); len(fields) > 0 && (fields[0] == "up" || fields[0] == "process" || strings.HasPrefix(printed, "http")) {
			n++
			if !slices.ContainsFunc(lines, func(line string) bool { return shape(line) == shape(printed) }) {
				t.Errorf("docs/operating.md does not show %q", printed)
			}
		}
	}
	if n != 3 {
		t.Errorf("%d lines compared of 3: %s", n, out.String())
	}
}

// readPages are the pages of the repository, by their paths.
func readPages(t *testing.T) map[string]string {
	t.Helper()
	root, all := filepath.Join("..", ".."), map[string]string{}
	for _, pattern := range []string{"README*.md", "docs/*.md", "docs/*/*.md", "docs/*/*/*.md", "clients/js/README.md"} {
		list, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(list) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, path := range list {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel(root, path)
			all[filepath.ToSlash(name)] = string(text)
		}
	}
	return all
}
