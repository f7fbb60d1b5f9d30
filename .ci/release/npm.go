package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

var packageVersion = regexp.MustCompile(`(?m)^  "version": "[^"]*",$`)

// tarball makes the npm package of the client in TypeScript, with the release's version. npm itself writes neither date nor
// owner into it.
func (b *build) tarball() error {
	dir := filepath.Join(b.source, "clients", "js")
	if _, err := run(dir, nil, "npm", "ci", "--no-audit", "--no-fund"); err != nil {
		return err
	}
	path := filepath.Join(dir, "package.json")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if len(packageVersion.FindAll(text, -1)) != 1 {
		return fmt.Errorf("%s has no line with its version", path)
	}
	text = packageVersion.ReplaceAll(text, fmt.Appendf(nil, `  "version": %q,`, b.version))
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return err
	}
	_, err = run(dir, nil, "npm", "pack", "--pack-destination", b.out)
	return err
}
