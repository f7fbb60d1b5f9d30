package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// A build is a release that is being made. Its texts are the same for every target.
//
// Owner: one goroutine.
type build struct {
	*plan
	source string // the files of the commit
	work   string // for files on the way
	shared []file // texts of every archive and package
	conf   []byte // the settings of the packages
}

// A file is one of an archive, without a date and without an owner.
//
// Owner: immutable.
type file struct {
	name string
	text []byte
	mode int64
}

// compile builds the program for a target, unless it has done so, and returns its path.
func (b *build) compile(t target) (string, error) {
	path := filepath.Join(b.work, "parley_"+t.system+"_"+t.arch)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	flags := fmt.Sprintf("-s -w -buildid= -X main.version=%s -X main.revision=%s", b.version, b.commit)
	// What could differ between two machines is fixed here: C, flags of the user, a workspace around the folder, the processor.
	env := []string{"CGO_ENABLED=0", "GOOS=" + t.system, "GOARCH=" + t.arch, "GOFLAGS=-mod=readonly", "GOWORK=off", "GOEXPERIMENT=",
		"GOAMD64=v1", "GOARM64=v8.0", "GOFIPS140=off"}
	if b.cache != "" {
		env = append(env, "GOCACHE="+b.cache)
	}
	_, err := run(b.source, env, "go", "build", "-p", strconv.Itoa(b.parallel), "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", path, "./cmd/parley")
	return path, err
}

// texts makes the files that need no compiler, or the program itself: completions, manual pages, settings.
func (b *build) texts() error {
	program, err := b.compile(target{runtime.GOOS, runtime.GOARCH})
	if err != nil {
		return err
	}
	for _, made := range []struct {
		name string
		args []string
	}{
		{"completions/parley.bash", []string{"completion", "bash"}},
		{"completions/_parley", []string{"completion", "zsh"}},
		{"completions/parley.fish", []string{"completion", "fish"}},
		{"man/man1/parley.1", []string{"man", "1", "--date", b.date.Format("2006-01-02")}},
		{"man/man5/parley.yaml.5", []string{"man", "5", "--date", b.date.Format("2006-01-02")}},
		{"parley.yaml", []string{"default-config"}},
	} {
		text, err := run(b.work, nil, append([]string{program}, made.args...)...)
		if err != nil {
			return err
		}
		b.shared = append(b.shared, file{made.name, text, 0o644})
		if made.name == "parley.yaml" {
			b.conf = text
		}
	}
	for _, name := range []string{"LICENSE", "README.md", "CHANGELOG.md", "docs/deploy/parley.service", "docs/deploy/nginx.conf"} {
		text, err := os.ReadFile(filepath.Join(b.source, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		b.shared = append(b.shared, file{strings.TrimPrefix(name, "docs/"), text, 0o644})
	}
	return nil
}

// text is a file that every archive has.
func (b *build) text(name string) []byte {
	for _, f := range b.shared {
		if f.name == name {
			return f.text
		}
	}
	panic("no text " + name)
}

// target builds the program for a target, its archive, its list of components, and on Linux its Debian package.
func (b *build) target(t target) error {
	name := fmt.Sprintf("parley_%s_%s_%s", b.version, t.system, t.arch)
	program, err := b.compile(t)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	bom, modules, err := b.components(t, program)
	if err != nil {
		return err
	}
	others, err := b.licences(modules)
	if err != nil {
		return err
	}
	all := append([]file{{"parley", text, 0o755}, {"THIRD-PARTY.txt", others, 0o644}}, b.shared...)
	for path, content := range map[string][]byte{name + ".tar.gz": archive(name, all, b.date), name + ".cdx.json": bom} {
		if err := os.WriteFile(filepath.Join(b.out, path), content, 0o644); err != nil {
			return err
		}
	}
	if t.system == "linux" {
		return b.debian(t, program, others)
	}
	return nil
}
