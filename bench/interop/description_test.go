package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	gorilla "github.com/gorilla/websocket"
)

// compiles are the flags of docs/backend/README.md, and one more: a list may be shorter than an index.
var compiles = []string{"--strict", "--noUncheckedIndexedAccess", "--module", "nodenext", "--target", "es2022"}

// tool runs a command of the packages that nodeModules installs.
func tool(t *testing.T, dir, name string, words ...string) {
	t.Helper()
	cmd := exec.Command(filepath.Join("node_modules", ".bin", name), words...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, words, err, out)
	}
}

// The client that a public generator makes of /openapi.json as it is served calls every operation of a server with two workers. The
// compiler accepts the calls, and the answers and problems are what the types say.
func TestGeneratedClient(t *testing.T) {
	t.Parallel()
	need(t, "node")
	modules := filepath.Join(nodeModules(t), "node_modules")
	program, err := os.ReadFile(filepath.Join("node", "description.mts"))
	if err != nil {
		t.Fatal(err)
	}
	b := withTokens(t, "all", "--processes", "2")
	if err := os.Symlink(modules, filepath.Join(b.dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(b.dir, "description.mts"), string(program))
	tool(t, b.dir, "openapi-typescript", b.url+"/openapi.json", "-o", "parley.d.ts")
	tool(t, b.dir, "tsc", append(compiles, "description.mts")...)

	ann, bob := b.onTwoWorkers(t, b.example(t, "node", "token", "42").out)
	run := exec.Command("node", "description.mjs", ann.id, bob.id)
	run.Dir, run.Env = b.dir, b.environment()
	if r := b.run(t, run); r.code != 0 || !strings.HasSuffix(r.out, " operations") {
		t.Fatalf("%+v", r)
	}
	for p, code := range map[*person]int{ann: 4123, bob: 4001} {
		if m := p.until("broadcast"); fmt.Sprint(m["data"]) != "map[text:to the room]" {
			t.Errorf("a member got %v", m)
		}
		if m := p.until("greeting"); m["text"] != "to the user" {
			t.Errorf("a connection of the user got %v", m)
		}
		p.closed(code)
	}
}

var typescriptBlock = regexp.MustCompile("(?s)```ts\n(.*?)```")

// The commands of docs/backend/README.md make a client that publishes. npm has installed the same versions from package-lock.json.
func TestReadmeDescription(t *testing.T) {
	t.Parallel()
	need(t, "node")
	dir := nodeModules(t)
	install, generate, _ := strings.Cut(blocks(t, "docs/backend/README.md", "A client from the description")[0], "\n")
	pinned, err := os.ReadFile(filepath.Join(dir, "package.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(strings.TrimPrefix(install, "npm install ")) {
		at := strings.LastIndex(name, "@")
		if !strings.Contains(string(pinned), fmt.Sprintf("%q: %q", name[:at], name[at+1:])) {
			t.Errorf("package.json has not %s, which docs/backend/README.md installs", name)
		}
	}
	readme, err := os.ReadFile(filepath.Join(examples(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	program := typescriptBlock.FindSubmatch(readme)
	if program == nil {
		t.Fatal("docs/backend/README.md has no TypeScript")
	}
	e := openTerminal(t)
	writeFile(t, filepath.Join(e.dir, "notify.mts"), string(program[1]))
	if err := os.Symlink(filepath.Join(dir, "node_modules"), filepath.Join(e.dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	e.enter("export PARLEY_API_KEY=$(bin/parley key create --id shop --scopes publish | head -1)\nbin/parley serve &")
	e.serving()
	p := greet(t, "gorilla", fmt.Sprintf("ws://127.0.0.1:%d/", e.port))
	p.say(`{"type":"join","room":"chat:1"}`)
	p.until("joined")
	if shown := e.enter(generate); !strings.Contains(shown, "1 got it") {
		t.Errorf("the commands show %q", shown)
	}
	if m := p.until("broadcast"); fmt.Sprint(m["data"]) != "map[text:hi]" {
		t.Errorf("a member got %v", m)
	}
}

// onTwoWorkers are two connections with a token, on two workers, both in the room chat:1. There is no other one.
func (b *backend) onTwoWorkers(t *testing.T, token string) (ann, bob *person) {
	t.Helper()
	enter := func() *person {
		p, response := b.bearer(t, token)
		if p == nil {
			t.Fatal(response)
		}
		p.id = p.until("connected")["connection_id"].(string)
		return p
	}
	ann = enter()
	eventually(t, "the second connection is on the other worker", func() bool {
		if bob != nil {
			bob.c.reset()
		}
		bob = enter()
		return ann.id[:4] != bob.id[:4] // the first four digits are those of the instance
	})
	for _, p := range []*person{ann, bob} {
		p.say(`{"type":"join","room":"chat:1"}`)
		p.until("joined")
	}
	eventually(t, "both workers have told of two connections", func() bool { return b.stats("connections") == 2 })
	return ann, bob
}

// closed wants the server to close the connection with a code.
func (p *person) closed(code int) {
	p.t.Helper()
	_, err := p.c.read()
	for err == nil {
		_, err = p.c.read()
	}
	if !gorilla.IsCloseError(err, code) {
		p.t.Errorf("the connection ended with %v, not %d", err, code)
	}
}
