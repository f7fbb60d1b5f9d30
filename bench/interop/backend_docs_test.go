package interop

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// blocks are the pieces of shell of a document, from a heading to the next one of the same depth; all of them without a heading.
func blocks(t *testing.T, path, heading string) (list []string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", path))
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if heading != "" {
		_, behind, found := strings.Cut(text, "\n## "+heading+"\n")
		if !found {
			t.Fatalf("%s has no part %q", path, heading)
		}
		text, _, _ = strings.Cut(behind, "\n## ")
	}
	for _, m := range shellBlock.FindAllStringSubmatch(text, -1) {
		list = append(list, m[1])
	}
	return list
}

// terminal is a shell into which a test types the commands of a document.
//
// Owner: the test.
type terminal struct {
	t                     *testing.T
	in                    io.Writer
	out                   *said
	port, admin, api, web int
	dir                   string
	lines                 int // marks that have been written
}

// openTerminal starts a shell in a directory of its own that holds bin/parley and docs, with ports of its own.
func openTerminal(t *testing.T) *terminal {
	t.Helper()
	e := &terminal{t: t, out: new(said), port: freePort(t), admin: freePort(t), api: freePort(t), web: freePort(t), dir: t.TempDir()}
	if err := os.Mkdir(filepath.Join(e.dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"bin/parley": binary, "docs": filepath.Dir(examples(t))} {
		if err := os.Symlink(target, filepath.Join(e.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("sh")
	cmd.Dir, cmd.Stdout, cmd.Stderr = e.dir, e.out, e.out
	cmd.Env = append(os.Environ(), fmt.Sprint("PARLEY_PORT=", e.port), fmt.Sprint("PARLEY_ADMIN_PORT=", e.admin), fmt.Sprint("PARLEY_API_PORT=", e.api),
		fmt.Sprint("PARLEY_URL=http://127.0.0.1:", e.api), fmt.Sprintf("CHAT_WS_URL=ws://127.0.0.1:%d/", e.port))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	e.in = in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		started := descendants(cmd.Process.Pid)
		for _, pid := range started {
			syscall.Kill(pid, syscall.SIGTERM)
		}
		eventually(t, "what the shell started has ended", func() bool {
			for _, pid := range started {
				if running(pid) {
					return false
				}
			}
			return true
		})
		in.Close()
		cmd.Wait()
		if t.Failed() {
			t.Logf("the terminal shows:\n%s", e.out)
		}
	})
	return e
}

// enter types commands with the ports of this test, waits until all are done, and returns what they have shown.
func (e *terminal) enter(commands string) string {
	e.t.Helper()
	for from, to := range map[string]int{"8000": e.web, "9092": e.api} {
		commands = strings.ReplaceAll(commands, "127.0.0.1:"+from, fmt.Sprint("127.0.0.1:", to))
	}
	before := len(e.out.String())
	e.lines++
	mark := fmt.Sprintf("done %d with 0", e.lines)
	if _, err := fmt.Fprintf(e.in, "%s\necho \"done %d with $?\"\n", commands, e.lines); err != nil {
		e.t.Fatal(err)
	}
	eventually(e.t, "the commands are done: "+commands, func() bool {
		return strings.Contains(e.out.String()[before:], fmt.Sprintf("done %d with ", e.lines))
	})
	shown, _, well := strings.Cut(e.out.String()[before:], mark)
	if !well {
		e.t.Errorf("%s\nended with another code than 0", commands)
	}
	return shown
}

// serving waits until the server that the commands have started is ready.
func (e *terminal) serving() {
	e.t.Helper()
	eventually(e.t, "the server is ready", func() bool { return healthy(e.admin) })
}

// The commands of the READMEs, the same in both languages, publish into a room from the command line.
func TestReadmeBackends(t *testing.T) {
	need(t, "curl")
	english, chinese := blocks(t, "README.md", "Backends"), blocks(t, "README.zh.md", "后端")
	if len(english) != 1 || len(chinese) != 1 || english[0] != chinese[0] {
		t.Fatalf("the READMEs show\n%q and\n%q: want one block, the same", english, chinese)
	}
	start, curl, found := strings.Cut(english[0], "curl ")
	if !found {
		t.Fatal("the block has no curl")
	}
	e := openTerminal(t)
	e.enter(start)
	e.serving()
	p := greet(t, "gorilla", fmt.Sprintf("ws://127.0.0.1:%d/", e.port))
	p.say(`{"type":"join","room":"lobby"}`)
	p.until("joined")
	if shown := e.enter("curl " + curl); !strings.Contains(shown, "{}") {
		t.Errorf("curl shows %q", shown)
	}
	if m := p.until("broadcast"); m["data"] != "hello from a backend" || m["room"] != "lobby" {
		t.Errorf("a member got %v", m)
	}
	if m := p.until("broadcast"); m["data"] != "hello from the shell" {
		t.Errorf("a member got %v", m)
	}
}

// Every example has at most 120 lines and a row in the index, and both languages of docs/backend/start.md have the same commands.
func TestExamplesAreListed(t *testing.T) {
	dir := examples(t)
	index, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".md") {
			return err
		}
		n++
		name, _ := filepath.Rel(dir, path)
		text, err := os.ReadFile(path)
		if lines := strings.Count(string(text), "\n"); lines > 120 {
			t.Errorf("%s has %d lines: an example has at most 120", name, lines)
		}
		if !strings.Contains(string(index), "| ["+name+"]("+name+") | ") {
			t.Errorf("%s has no row in docs/backend/README.md", name)
		}
		return err
	})
	if err != nil || n < 10 {
		t.Errorf("%d examples: %v", n, err)
	}
	english, chinese := blocks(t, "docs/backend/start.md", ""), blocks(t, "docs/backend/start.zh.md", "")
	if len(english) < 5 || strings.Join(english, "\n") != strings.Join(chinese, "\n") {
		t.Errorf("start.md and start.zh.md differ in their %d and %d blocks of commands", len(english), len(chinese))
	}
}
