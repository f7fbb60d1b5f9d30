package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
)

const (
	maintainer = "The Parley authors <parleyd@users.noreply.github.com>"
	homepage   = "https://github.com/parleyd/parley"
)

// debianVersion is a version as dpkg sorts it: 1.2.3~rc.1 is before 1.2.3. The first "-" would begin a Debian revision.
func debianVersion(version string) string {
	numbers, before, is := strings.Cut(version, "-")
	if !is {
		return numbers
	}
	return numbers + "~" + strings.ReplaceAll(before, "-", ".")
}

// debian makes the package for an architecture.
func (b *build) debian(t target, program string, others []byte) error {
	unit, err := packagedUnit(b.text("deploy/parley.service"))
	if err != nil {
		return err
	}
	conf, err := packagedSettings(b.conf)
	if err != nil {
		return err
	}
	doc := "usr/share/doc/parley/"
	tree := []file{
		{"usr/lib/systemd/system/parley.service", unit, 0o644},
		{"etc/parley.yaml", conf, 0o644},
		{"usr/share/bash-completion/completions/parley", b.text("completions/parley.bash"), 0o644},
		{"usr/share/zsh/vendor-completions/_parley", b.text("completions/_parley"), 0o644},
		{"usr/share/fish/vendor_completions.d/parley.fish", b.text("completions/parley.fish"), 0o644},
		{"usr/share/man/man1/parley.1.gz", gzipped(b.text("man/man1/parley.1")), 0o644},
		{"usr/share/man/man5/parley.yaml.5.gz", gzipped(b.text("man/man5/parley.yaml.5")), 0o644},
		{doc + "copyright", copyright(b.text("LICENSE")), 0o644},
		{doc + "changelog.gz", gzipped(changelog(b.version, b.date)), 0o644},
		{doc + "CHANGELOG.md.gz", gzipped(b.text("CHANGELOG.md")), 0o644},
		{doc + "THIRD-PARTY.txt.gz", gzipped(others), 0o644},
		{doc + "examples/nginx.conf", b.text("deploy/nginx.conf"), 0o644},
	}
	dir, err := os.MkdirTemp(b.work, "debian-")
	if err != nil {
		return err
	}
	contents := files.Contents{{Source: program, Destination: "/usr/bin/parley", FileInfo: &files.ContentFileInfo{Mode: 0o755, MTime: b.date}}}
	for _, f := range tree {
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		if err := unpack(path, bytes.NewReader(f.text), 0o644); err != nil {
			return err
		}
		kind := files.TypeFile
		if f.name == "etc/parley.yaml" {
			kind = files.TypeConfig
		}
		contents = append(contents, &files.Content{Source: path, Destination: "/" + f.name, Type: kind,
			FileInfo: &files.ContentFileInfo{Mode: os.FileMode(f.mode), MTime: b.date}})
	}
	version := debianVersion(b.version)
	var packed bytes.Buffer
	if err := deb.Default.Package(b.description(t, version, contents), &packed); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.out, fmt.Sprintf("parley_%s_%s.deb", version, t.arch)), packed.Bytes(), 0o644)
}

// description is what the package says of itself.
func (b *build) description(t target, version string, contents files.Contents) *nfpm.Info {
	script := func(name string) string { return filepath.Join(b.source, ".ci", "release", "debian", name) }
	return nfpm.WithDefaults(&nfpm.Info{
		Name: "parley", Arch: t.arch, Platform: "linux", Version: version, VersionSchema: "none",
		Section: "net", Priority: "optional", Maintainer: maintainer, Homepage: homepage, License: "MIT", MTime: b.date,
		Description: "WebSocket room server for very many connections\n" +
			"Clients join rooms and publish to them; backends publish over HTTP. Sessions\n" +
			"resume after a drop, and rooms with history send what a client has missed.",
		DisableGlobbing: true,
		Overridables: nfpm.Overridables{
			Depends:  []string{"adduser"},
			Suggests: []string{"nginx"},
			Contents: contents,
			Scripts:  nfpm.Scripts{PostInstall: script("postinst"), PreRemove: script("prerm"), PostRemove: script("postrm")},
			Deb:      nfpm.Deb{Compression: "gzip"},
		},
	})
}

// replaced changes texts of which each must stand there once.
func replaced(text []byte, pairs ...string) ([]byte, error) {
	for i := 0; i < len(pairs); i += 2 {
		if n := bytes.Count(text, []byte(pairs[i])); n != 1 {
			return nil, fmt.Errorf("%q stands there %d times: the package needs it once", pairs[i], n)
		}
		text = bytes.Replace(text, []byte(pairs[i]), []byte(pairs[i+1]), 1)
	}
	return text, nil
}

// packagedUnit is docs/deploy/parley.service for a package: the program is in /usr/bin, and the user exists.
func packagedUnit(unit []byte) ([]byte, error) {
	return replaced(unit,
		"# systemd: /etc/systemd/system/parley.service, then systemctl daemon-reload && systemctl enable --now parley\n",
		"# This file belongs to the package. To change a line: systemctl edit parley\n",
		"ExecStart=/usr/local/bin/parley ", "ExecStart=/usr/bin/parley ",
		"\nDocumentation=https://github.com/parleyd/parley\n", "\nDocumentation=man:parley(1) man:parley.yaml(5) https://github.com/parleyd/parley\n",
		"\nDynamicUser=yes\n", "\nUser=parley\nGroup=parley\nRemoveIPC=yes\n"+
			"# The key of this run is there, for commands of root: parley conns ls --key-file /run/parley/api-9092.key\n"+
			"RuntimeDirectory=parley\nRuntimeDirectoryMode=0700\nEnvironment=XDG_RUNTIME_DIR=/run\n",
		"sessions: with data_dir: /var/lib/parley in the settings it\n# keeps them there.", "sessions, where data_dir in the settings\n# names it.")
}

// packagedSettings are the defaults, with the directory for sessions that the package has made. Only this machine reaches the
// server.
func packagedSettings(conf []byte) ([]byte, error) {
	return replaced(conf,
		"# Settings of parley serve. A line without # changes the default that stands there.\n",
		"# Settings of the service parley: man parley.yaml. A line without # changes the default.\n"+
			"# Afterwards: parley check-config /etc/parley.yaml && systemctl restart parley\n",
		"\n# host: 127.0.0.1\n", "\nhost: 127.0.0.1\n",
		"\n# data_dir: \"\"\n", "\ndata_dir: /var/lib/parley\n")
}

// copyright is the licence in Debian's form.
func copyright(licence []byte) []byte {
	var text strings.Builder
	holder := ""
	for line := range strings.Lines(strings.TrimSpace(string(licence))) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "Copyright (c) ") {
			holder = strings.TrimPrefix(line, "Copyright (c) ")
		}
		if line == "" {
			line = "."
		}
		text.WriteString(" " + line + "\n")
	}
	return []byte("Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: Parley\nSource: " + homepage +
		"\nComment: The program contains libraries of others. Their licences are in THIRD-PARTY.txt.gz.\n" +
		"\nFiles: *\nCopyright: " + holder + "\nLicense: Expat\n" + text.String())
}

// changelog is the one entry that Debian's tools expect; the changes themselves are in CHANGELOG.md.
func changelog(version string, date time.Time) []byte {
	return fmt.Appendf(nil, "parley (%s) stable; urgency=medium\n\n  * The changes are in CHANGELOG.md.gz beside this file.\n\n -- %s  %s\n",
		debianVersion(version), maintainer, date.Format(time.RFC1123Z))
}
