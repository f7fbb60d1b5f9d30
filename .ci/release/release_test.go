package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// here is the target whose programs this machine runs; packages are of Linux.
var here = target{"linux", runtime.GOARCH}

const (
	olderVersion = "0.0.1-rc.1"
	newerVersion = "0.0.1"
)

// need is the path of a program that a test runs.
func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		lacking(t, program+" is missing")
	}
	return path
}

// lacking ends a test that this machine cannot run. In CI it fails.
func lacking(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("REQUIRE_ALL_CLIENTS") == "1" {
		t.Fatalf("%s, and REQUIRE_ALL_CLIENTS=1 requires it", what)
	}
	t.Skip(what)
}

// tree is the commit with the changes that are not committed yet, so that a test sees them. New files must be added to git.
var tree = sync.OnceValue(func() string {
	p := plan{repo: filepath.Join("..", "..")}
	if stash, err := p.git("-c", "user.name=test", "-c", "user.email=test@localhost", "stash", "create"); err == nil && stash != "" {
		return stash
	}
	return "HEAD"
})

var released = map[string]func() (string, error){olderVersion: once(olderVersion), newerVersion: once(newerVersion)}

// once builds a release for this machine's architecture, without the npm tarball, when a test first asks for it.
func once(version string) func() (string, error) {
	return sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp(scratch, "")
		if err != nil {
			return "", err
		}
		p := plan{repo: filepath.Join("..", ".."), rev: tree(), version: version, out: dir, targets: []target{here}, parallel: runtime.NumCPU()}
		return dir, p.release()
	})
}

var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "parley-release-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(scratch)
	os.Exit(code)
}

// folder is the release of a version.
func folder(t *testing.T, version string) string {
	t.Helper()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("no release is made for this architecture")
	}
	need(t, "git")
	dir, err := released[version]()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A version comes from the tag, and those between two tags sort between them, for dpkg too.
func TestVersions(t *testing.T) {
	for said, want := range map[string]string{
		"v1.2.3-0-gabcdef123456":      "1.2.3",
		"v1.2.3-5-gabcdef123456":      "1.2.4-dev.5.gabcdef123456",
		"v1.2.3-rc.1-0-gabcdef123456": "1.2.3-rc.1",
		"v1.2.3-rc.1-5-gabcdef123456": "1.2.3-rc.1.dev.5.gabcdef123456",
	} {
		if got, err := developed(said); err != nil || got != want || !semver.MatchString(got) {
			t.Errorf("%s is %s (%v), want %s", said, got, err, want)
		}
	}
	if got, err := developed("v1.2-5-gabcdef123456"); err == nil {
		t.Errorf("v1.2 became %s", got)
	}
	for _, wrong := range []string{"", "1.2", "1.2.3+4", "01.2.3", "main", "1.2.3-", "1.2.3 "} {
		if semver.MatchString(wrong) {
			t.Errorf("%q passes for a version", wrong)
		}
	}
	dpkg := need(t, "dpkg")
	order := []string{"0.0.0-dev.588.gabc", "1.2.3-dev.5.gabc", "1.2.3-rc.1", "1.2.3-rc.1.dev.5.gabc", "1.2.3-rc.2", "1.2.3", "1.2.4-dev.1.gabc"}
	for i := 1; i < len(order); i++ {
		if err := exec.Command(dpkg, "--compare-versions", debianVersion(order[i-1]), "lt", debianVersion(order[i])).Run(); err != nil {
			t.Errorf("%s is not before %s: %v", debianVersion(order[i-1]), debianVersion(order[i]), err)
		}
	}
}

// unpacked are the files of a tar.gz, by name.
func unpacked(t *testing.T, packed []byte) (heads []*tar.Header, texts map[string][]byte) {
	t.Helper()
	from, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if !from.ModTime.IsZero() || from.Name != "" {
		t.Errorf("the compression has a date (%v) or a name (%q)", from.ModTime, from.Name)
	}
	texts = map[string][]byte{}
	for archive := tar.NewReader(from); ; {
		head, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return heads, texts
		} else if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, head)
		if texts[head.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

// The archive holds a static program that knows its version and its commit, completions, manual pages and licences. It holds
// neither an owner nor a date besides that of the commit.
func TestArchive(t *testing.T) {
	dir := folder(t, newerVersion)
	name := "parley_" + newerVersion + "_linux_" + runtime.GOARCH
	heads, texts := unpacked(t, content(t, filepath.Join(dir, name+".tar.gz")))
	var names []string
	for _, h := range heads {
		names = append(names, strings.TrimPrefix(h.Name, name+"/"))
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || !h.ModTime.Equal(heads[0].ModTime) {
			t.Errorf("%+v", h)
		}
	}
	want := []string{"CHANGELOG.md", "LICENSE", "README.md", "THIRD-PARTY.txt", "completions/_parley", "completions/parley.bash", "completions/parley.fish",
		"deploy/nginx.conf", "deploy/parley.service", "man/man1/parley.1", "man/man5/parley.yaml.5", "parley", "parley.yaml"}
	if !slices.Equal(names, want) {
		t.Errorf("it holds %q, want %q", names, want)
	}
	for file, part := range map[string]string{"completions/parley.bash": "complete -o default -F __start_parley parley", "completions/_parley": "#compdef parley",
		"completions/parley.fish": "complete -c parley", "man/man1/parley.1": ".TH PARLEY 1", "man/man5/parley.yaml.5": ".TH PARLEY.YAML 5",
		"parley.yaml": "# port: 9090", "THIRD-PARTY.txt": "github.com/gobwas/ws v", "LICENSE": "MIT"} {
		if !strings.Contains(string(texts[name+"/"+file]), part) {
			t.Errorf("%s holds no %q", file, part)
		}
	}
	if others := string(texts[name+"/THIRD-PARTY.txt"]); !strings.Contains(others, "the Go standard library") || strings.Count(others, strings.Repeat("=", 78)) < 20 {
		t.Errorf("licences are missing:\n%.400s", others)
	}
	program := filepath.Join(t.TempDir(), "parley")
	if err := os.WriteFile(program, texts[name+"/parley"], 0o755); err != nil {
		t.Fatal(err)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	fatal(t, err, root)
	if bytes.Contains(texts[name+"/parley"], []byte("/parley-release-")) || bytes.Contains(texts[name+"/parley"], append(bytes.TrimSpace(root), "/src"...)) {
		t.Error("the program holds a path of the machine that built it")
	}
	linked, err := elf.NewFile(bytes.NewReader(texts[name+"/parley"]))
	if err != nil || slices.ContainsFunc(linked.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		t.Errorf("the program is not static: %v", err)
	}
	out, err := exec.Command(program, "version").CombinedOutput()
	if err != nil || !regexp.MustCompile(`^parley `+regexp.QuoteMeta(newerVersion)+` commit [0-9a-f]{12} go1\.\d+\S* linux/`+runtime.GOARCH+"\n$").Match(out) {
		t.Errorf("%v: %s", err, out)
	}
}

// Two builds of one commit have the same sums, and the file of sums is one that sha256sum checks. This build finds the packages
// that the first has compiled; make release-check compiles them again.
func TestSameSums(t *testing.T) {
	dir, again := folder(t, newerVersion), filepath.Join(t.TempDir(), "another", "folder")
	clone := filepath.Join(t.TempDir(), "clone")
	p := plan{repo: filepath.Join("..", ".."), rev: tree()}
	p.version = newerVersion
	if err := p.settle(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.git("clone", "--quiet", "--no-hardlinks", ".", clone); err != nil {
		t.Fatal(err)
	}
	if _, err := (&plan{repo: clone}).git("fetch", "--quiet", absolute(t, p.repo), p.commit); err != nil { // changes that are not committed have no branch
		t.Fatal(err)
	}
	second := plan{repo: clone, rev: p.commit, version: newerVersion, out: again, targets: []target{here}, parallel: runtime.NumCPU()}
	if err := second.release(); err != nil {
		t.Fatal(err)
	}
	a, b := content(t, filepath.Join(dir, sumsFile)), content(t, filepath.Join(again, sumsFile))
	if err := difference(a, b); err != nil {
		t.Error(err)
	}
	if lines := strings.Count(string(a), "\n"); lines != 3 {
		t.Errorf("%d files have sums:\n%s", lines, a)
	}
	check := exec.Command(need(t, "sha256sum"), "--check", "--strict", sumsFile)
	check.Dir = dir
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if difference(a, bytes.Replace(b, []byte("a"), []byte("b"), 1)) == nil || difference(a, b[:len(b)/2]) == nil {
		t.Error("a difference goes unnoticed")
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A folder with other files is left alone, and a wrong target or version is refused before anything is built.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := emptied(dir); err == nil || !strings.Contains(err.Error(), "thesis.txt") {
		t.Error(err)
	}
	if err := new(plan).choose("linux"); err == nil {
		t.Error("linux passes for a target")
	}
	p := plan{repo: filepath.Join("..", ".."), rev: "HEAD", version: "next"}
	if err := p.settle(); err == nil || !strings.Contains(err.Error(), "write 1.2.3") {
		t.Error(err)
	}
	if _, err := replaced([]byte("a b a"), "a", "c"); err == nil {
		t.Error("a text that stands there twice is replaced")
	}
}

func fatal(t *testing.T, err error, out []byte) {
	t.Helper()
	if err != nil {
		t.Fatal(fmt.Errorf("%w\n%s", err, out))
	}
}

// The npm tarball has the release's version, what package.json lists and nothing else, and no date of its own.
func TestTarball(t *testing.T) {
	need(t, "npm")
	var sums []string
	for range 2 {
		p := plan{repo: filepath.Join("..", ".."), rev: tree(), version: olderVersion, out: t.TempDir()}
		if err := p.settle(); err != nil {
			t.Fatal(err)
		}
		b := build{plan: &p, source: filepath.Join(t.TempDir(), "source")}
		if err := p.export(b.source); err != nil {
			t.Fatal(err)
		}
		if err := b.tarball(); err != nil {
			t.Fatal(err)
		}
		text := content(t, filepath.Join(p.out, "parley-client-"+olderVersion+".tgz"))
		sums = append(sums, fmt.Sprintf("%x", sha256.Sum256(text)))
		_, texts := unpacked(t, text)
		for name := range texts {
			if !strings.HasPrefix(name, "package/dist/") && name != "package/package.json" && name != "package/README.md" {
				t.Errorf("it holds %s", name)
			}
		}
		if len(texts) < 5 || !strings.Contains(string(texts["package/package.json"]), `"version": "`+olderVersion+`"`) {
			t.Errorf("%d files:\n%s", len(texts), texts["package/package.json"])
		}
	}
	if sums[0] != sums[1] {
		t.Errorf("built twice, it has the sums %q", sums)
	}
}
