package docs

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

var clauseTag = regexp.MustCompile(`\[(RFC \d+ §[\d.]+|wire protocol, [a-z ]+)\]`)

// A clause that the code claims to obey is one that a test names.
func TestClauseTags(t *testing.T) {
	tested := map[string]bool{}
	var claimed = map[string]string{}
	for _, s := range sources(t) {
		for _, m := range clauseTag.FindAllStringSubmatch(s.text, -1) {
			if s.test() || strings.Contains(s.path, "conformance/") {
				tested[m[1]] = true
			} else {
				claimed[m[1]] = s.path
			}
		}
	}
	for clause, path := range claimed {
		if strings.HasPrefix(clause, "RFC") && !tested[clause] {
			t.Errorf("%s: no test names [%s]: write one, or drop the tag", path, clause)
		}
	}
	if len(claimed) < 10 {
		t.Errorf("only %d clauses are claimed: the search is wrong", len(claimed))
	}
}

// Every direct dependency has its line of reason.
func TestDependenciesHaveReasons(t *testing.T) {
	reasons, err := os.ReadFile(filepath.Join("decisions", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, mod := range []string{"../go.mod", "../bench/go.mod", "../.ci/release/go.mod"} {
		text, err := os.ReadFile(mod)
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			if len(fields) >= 2 && strings.HasPrefix(fields[1], "v") && !strings.Contains(line, "// indirect") && strings.Contains(fields[0], ".") &&
				!strings.HasPrefix(fields[0], module) && !strings.Contains(string(reasons), "`"+fields[0]+"`") {
				t.Errorf("%s: %s has no line in docs/decisions/dependencies.md: say why it is there, or drop it", mod, fields[0])
			}
		}
	}
}

// The index of the documents names each of them, once.
func TestIndex(t *testing.T) {
	all := files(t, ".md")
	check := func(index string) (wrong []string) {
		named := map[string]int{}
		for _, m := range link.FindAllStringSubmatch(index, -1) {
			named[path.Join("docs", m[1])]++
		}
		for name := range all {
			if strings.HasPrefix(name, "docs/") && name != "docs/README.md" && named[name] != 1 {
				wrong = append(wrong, fmt.Sprintf("%s: the index names it %d times: give it one line in its group", name, named[name]))
			}
		}
		return wrong
	}
	_, index, ok := strings.Cut(all["docs/README.md"], "\n## ")
	if !ok || len(check(strings.Replace(index, "](wire.md)", "]()", 1))) == 0 || len(check(index+"[again](wire.md)")) == 0 {
		t.Error("a line that is planted to be missing, or to stand twice, goes unnoticed: the rule does not run")
	}
	for _, fault := range check(index) {
		t.Errorf("docs/README.md: %s", fault)
	}
}

// Every package says what it is and what it refuses to do.
func TestPackageDocs(t *testing.T) {
	said := map[string]bool{}
	seen := map[string]bool{}
	for _, s := range sources(t) {
		if s.test() || strings.HasPrefix(s.path, "bench/") {
			continue
		}
		seen[s.dir()] = true
		text := strings.ToLower(s.file.Doc.Text())
		if strings.Contains(text, "refuses") && strings.Contains(text, "start reading") {
			said[s.dir()] = true
		}
	}
	for dir := range seen {
		if !said[dir] {
			t.Errorf("package %s: its doc must say what it refuses to do, and where to start reading", dir)
		}
	}
}

// The map of docs/CONTRIBUTING.md has a row for each package and for the client in TypeScript, and no other.
func TestMap(t *testing.T) {
	packages := map[string]bool{"clients/js": true}
	for _, s := range sources(t) {
		packages[s.dir()] = true
	}
	check := func(text string) (wrong []string) {
		rows := map[string]int{}
		for _, m := range mapRow.FindAllStringSubmatch(text, -1) {
			rows[m[1]]++
			if !packages[m[1]] {
				wrong = append(wrong, m[1]+": there is no such package: take its row out")
			}
		}
		for dir := range packages {
			if rows[dir] != 1 {
				wrong = append(wrong, fmt.Sprintf("%s has %d rows: say in one line what it is", dir, rows[dir]))
			}
		}
		return wrong
	}
	const name = "docs/CONTRIBUTING.md"
	text := files(t, name)[name]
	for _, planted := range []string{strings.ReplaceAll(text, "\n| `rooms` | ", "\n| "), text + "\n| `rooms` | twice", text + "\n| `engine/nothing` | gone"} {
		if len(check(planted)) == 0 {
			t.Error("a fault that is planted into the map goes unnoticed: the rule does not run")
		}
	}
	for _, fault := range check(text) {
		t.Errorf("%s: the map of the code: %s", name, fault)
	}
}

var mapRow = regexp.MustCompile("(?m)^\\| `((?:\\.ci|bench|clients|cmd|docs|engine|protocol|rooms)[a-z/-]*)` \\| ")

var goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")

// The programs of the READMEs and of docs/library.md are whole and compile; the READMEs' are the same in both languages.
func TestReadmePrograms(t *testing.T) {
	texts := files(t, "")
	programs := func(name string) (list []string) {
		for _, m := range goBlock.FindAllStringSubmatch(texts[name], -1) {
			list = append(list, m[1])
		}
		return list
	}
	list := programs("README.md")
	if len(list) < 2 || !slices.Equal(list, programs("README.zh.md")) {
		t.Fatalf("the READMEs show %d and %d programs: want the same, two or more", len(list), len(programs("README.zh.md")))
	}
	library := programs("docs/library.md")
	if len(library) == 0 {
		t.Error("docs/library.md shows no program: the search is wrong")
	}
	for _, program := range append(list, library...) {
		path := filepath.Join(t.TempDir(), "main.go")
		if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
			t.Fatal(err)
		}
		vet := exec.Command("go", "vet", path)
		vet.Dir = ".."
		if out, err := vet.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// A newcomer's older Go may fetch the one that go.mod wants; continuous integration uses what is installed.
func TestToolchain(t *testing.T) {
	for path, want := range map[string]bool{"../Makefile": false, "../.ci/test": false, "../.ci/run": true} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "GOTOOLCHAIN") != want {
			t.Errorf("%s: only .ci/run says which toolchain may be used (GOTOOLCHAIN=local)", path)
		}
	}
}

// The first program of the READMEs takes its leave on SIGTERM, and refuses a message to a room that its sender is not in.
func TestReadmeProgramRuns(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(free.Addr().String())
	free.Close()
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	text := goBlock.FindStringSubmatch(files(t, "")["README.md"])[1]
	if err := os.WriteFile(source, []byte(strings.Replace(text, "9090", port, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", binary, source)
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program := exec.Command(binary)
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	defer program.Process.Kill()
	var conn net.Conn
	for until := time.Now().Add(time.Minute); ; {
		if conn, _, _, err = ws.Dial(t.Context(), "ws://127.0.0.1:"+port); err == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
	defer conn.Close()
	wsutil.WriteClientText(conn, []byte(`{"type":"chat","room":"r","text":"x"}`))
	refused := false
	for err == nil {
		var answer []byte
		if answer, _, err = wsutil.ReadServerData(conn); strings.Contains(string(answer), "not_in_room") {
			refused = true
			program.Process.Signal(syscall.SIGTERM)
		}
	}
	if closed, ok := err.(wsutil.ClosedError); !refused || !ok || closed.Code != ws.StatusGoingAway {
		t.Errorf("refused: %v, ended with %v", refused, err)
	}
	if err := program.Wait(); err != nil {
		t.Error(err)
	}
}
