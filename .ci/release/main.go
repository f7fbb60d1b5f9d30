// Command release builds the files of a release of Parley, from one commit, into one folder: static programs in archives,
// Debian packages, the npm tarball, lists of components, and the sums of all of them.
//
// What it refuses to do: publish anything, and build anything that is not committed. Start reading at release.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// A plan is what to build, and how.
//
// Owner: immutable after settle.
type plan struct {
	repo     string // folder with the repository
	rev      string // what to build: a commit, a tag or a branch
	version  string // as in 1.2.3 or 1.2.3-rc.1; settle takes it from the tag
	out      string // folder for the files; it is emptied
	targets  []target
	npm      bool // build the npm tarball, too
	parallel int  // of go build: programs that run at the same time
	cache    string

	commit string    // settle finds it
	date   time.Time // of the commit: the time of every file
}

// A target is an operating system and an architecture, as Go names them.
type target struct{ system, arch string }

func (t target) String() string { return t.system + "/" + t.arch }

var allTargets = []target{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "amd64"}, {"darwin", "arm64"}}

func main() {
	log.SetFlags(0)
	p := plan{npm: true}
	flag.StringVar(&p.repo, "repo", ".", "folder of the repository")
	flag.StringVar(&p.rev, "rev", "HEAD", "commit, tag or branch to build; changes that are not committed are left out")
	flag.StringVar(&p.version, "version", "", "version, like 1.2.3; without it the tag says it, or a version for developers is made")
	flag.StringVar(&p.out, "out", "release", "folder for the files; it is emptied first")
	flag.IntVar(&p.parallel, "p", runtime.NumCPU(), "compilers that run at the same time")
	flag.StringVar(&p.cache, "cache", "", "folder of compiled packages, like GOCACHE")
	only := flag.String("only", "", "targets to build, like linux/amd64,darwin/arm64; without it all four")
	withoutNPM := flag.Bool("without-npm", false, "build no npm tarball")
	check := flag.Bool("check", false, "build everything twice, in two folders and without shared compiled packages, and compare the sums")
	flag.Parse()
	p.npm = !*withoutNPM
	if err := p.choose(*only); err != nil {
		log.Fatal(err)
	}
	run := p.release
	if *check {
		run = p.releaseTwice
	}
	if err := run(); err != nil {
		log.Fatal("release: ", err)
	}
}

// choose sets the targets: all, or those of a list.
func (p *plan) choose(list string) error {
	if list == "" {
		p.targets = allTargets
		return nil
	}
	for name := range strings.SplitSeq(list, ",") {
		system, arch, _ := strings.Cut(name, "/")
		p.targets = append(p.targets, target{system, arch})
		if system == "" || arch == "" {
			return fmt.Errorf("%q is no target; write linux/amd64", name)
		}
	}
	return nil
}

// settle finds the commit, its date and its version.
func (p *plan) settle() error {
	commit, err := p.git("rev-parse", "--verify", p.rev+"^{commit}")
	if err != nil {
		return err
	}
	seconds, err := p.git("show", "--no-patch", "--format=%ct", commit)
	if err != nil {
		return err
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("read the date of %s: %w", commit, err)
	}
	p.commit, p.date = commit, time.Unix(unix, 0).UTC()
	if p.version == "" {
		if p.version, err = p.describe(); err != nil {
			return err
		}
	}
	p.version = strings.TrimPrefix(p.version, "v")
	if !semver.MatchString(p.version) {
		return fmt.Errorf("%q is no version; write 1.2.3 or 1.2.3-rc.1", p.version)
	}
	p.out, err = filepath.Abs(p.out)
	return err
}

// semver matches a version without build metadata: a Debian version and a tag of an image have no place for that.
var semver = regexp.MustCompile(`^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

// described matches git's words for a commit: the last tag, the commits since then, and the commit.
var described = regexp.MustCompile(`^v(\d+)\.(\d+)\.(\d+)(-.+)?-(\d+)-(g[0-9a-f]+)$`)

// describe is the version of the commit: its tag, or a version for developers, which sorts between the last tag and the next.
func (p *plan) describe() (string, error) {
	said, err := p.git("describe", "--tags", "--long", "--abbrev=12", "--match", "v[0-9]*", p.commit)
	if err != nil { // no tag yet
		count, err := p.git("rev-list", "--count", p.commit)
		return "0.0.0-dev." + count + ".g" + p.commit[:12], err
	}
	return developed(said)
}

// developed is the version for a commit that git describes.
func developed(said string) (string, error) {
	m := described.FindStringSubmatch(said)
	if m == nil {
		return "", fmt.Errorf("the last tag of %q is no version; write v1.2.3", said)
	}
	major, minor, patch, before, since, hash := m[1], m[2], m[3], m[4], m[5], m[6]
	if since == "0" {
		return major + "." + minor + "." + patch + before, nil
	}
	if before != "" { // 1.2.3-rc.1.dev.5 is behind 1.2.3-rc.1
		return fmt.Sprintf("%s.%s.%s%s.dev.%s.%s", major, minor, patch, before, since, hash), nil
	}
	n, err := strconv.Atoi(patch)
	return fmt.Sprintf("%s.%s.%d-dev.%s.%s", major, minor, n+1, since, hash), err
}

// release builds all files into the folder out.
func (p plan) release() error {
	if err := p.settle(); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "parley-release-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	log.Printf("parley %s, commit %.12s of %s", p.version, p.commit, p.date.Format(time.DateOnly))
	if err := emptied(p.out); err != nil {
		return err
	}
	b := build{plan: &p, source: filepath.Join(work, "source"), work: work}
	if err := p.export(b.source); err != nil {
		return err
	}
	if err := b.texts(); err != nil {
		return err
	}
	for _, t := range p.targets {
		log.Print("building for ", t)
		if err := b.target(t); err != nil {
			return fmt.Errorf("%s: %w", t, err)
		}
	}
	if p.npm {
		log.Print("building the npm tarball")
		if err := b.tarball(); err != nil {
			return fmt.Errorf("npm tarball: %w", err)
		}
	}
	return sums(p.out)
}

// emptied makes a folder that holds nothing. It removes only files of an earlier release.
func emptied(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, path := range old {
		name := filepath.Base(path)
		if !strings.HasPrefix(name, "parley") && name != sumsFile {
			return fmt.Errorf("%s is no file of a release: choose another folder", path)
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return os.MkdirAll(dir, 0o755)
}
