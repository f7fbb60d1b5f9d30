package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// components is the list of the program's components, in the format of CycloneDX, as Go has noted them in the program itself.
func (b *build) components(t target, program string) ([]byte, []*debug.Module, error) {
	built, err := buildinfo.ReadFile(program)
	if err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(program)
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(text)
	own := cdx.Component{
		BOMRef: "pkg:golang/" + built.Main.Path + "@" + b.version, Type: cdx.ComponentTypeApplication, Name: "parley", Version: b.version,
		Description: "WebSocket room server, for " + t.String(), PackageURL: "pkg:golang/" + built.Main.Path + "@" + b.version,
		Hashes:   &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
		Licenses: &cdx.Licenses{{License: &cdx.License{ID: "MIT"}}},
		Properties: &[]cdx.Property{{Name: "parley:commit", Value: b.commit}, {Name: "parley:go", Value: built.GoVersion},
			{Name: "parley:target", Value: t.String()}},
	}
	var list []cdx.Component
	var refs []string
	add := func(path, version string) {
		purl := "pkg:golang/" + strings.ReplaceAll(url.PathEscape(path), "%2F", "/") + "@" + url.QueryEscape(version)
		list = append(list, cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: purl, Scope: cdx.ScopeRequired})
		refs = append(refs, purl)
	}
	modules := slices.SortedFunc(slices.Values(built.Deps), func(x, y *debug.Module) int { return cmp.Compare(x.Path, y.Path) })
	for i, m := range modules {
		if m.Replace != nil {
			modules[i] = m.Replace
		}
		add(modules[i].Path, modules[i].Version)
	}
	add("std", strings.TrimPrefix(built.GoVersion, "go"))
	bom := cdx.NewBOM()
	bom.SerialNumber = serial(sum)
	bom.Metadata = &cdx.Metadata{Timestamp: b.date.Format(time.RFC3339), Component: &own}
	bom.Components = &list
	bom.Dependencies = &[]cdx.Dependency{{Ref: own.BOMRef, Dependencies: &refs}}
	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, nil, err
	}
	return out.Bytes(), modules, nil
}

// serial is a UUID that follows from the program's sum (RFC 9562, version 8), so that two builds name the same list.
func serial(sum [sha256.Size]byte) string {
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// licences are the texts of the licences of the modules, and of Go itself, which a program that contains them must come with.
func (b *build) licences(modules []*debug.Module) ([]byte, error) {
	words := []string{"go", "list", "-m", "-f", "{{.Path}} {{.Version}}\t{{.Dir}}"}
	for _, m := range modules {
		words = append(words, m.Path)
	}
	listed, err := run(b.source, []string{"GOFLAGS=-mod=readonly", "GOWORK=off"}, words...)
	if err != nil {
		return nil, err
	}
	root, err := run(b.source, nil, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.WriteString("parley contains these libraries.\n")
	lines := strings.Split(strings.TrimSpace(string(listed)), "\n")
	slices.Sort(lines)
	for _, line := range append(lines, "the Go standard library\t"+strings.TrimSpace(string(root))) {
		name, dir, _ := strings.Cut(line, "\t")
		texts, err := licenceTexts(dir)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(&out, "\n%s\n%s\n\n%s", strings.Repeat("=", 78), name, texts)
	}
	return out.Bytes(), nil
}

// licenceTexts are the files at the top of a module that say under which terms it may be passed on.
func licenceTexts(dir string) ([]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, e := range entries {
		upper := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(upper, "LICEN") && !strings.HasPrefix(upper, "COPYING") && !strings.HasPrefix(upper, "NOTICE") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "%s\n", bytes.TrimSpace(text))
	}
	if out.Len() == 0 {
		return nil, fmt.Errorf("%s holds no licence", dir)
	}
	return out.Bytes(), nil
}
