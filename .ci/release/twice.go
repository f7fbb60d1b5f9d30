package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"
)

// releaseTwice clones the commit into two folders, builds a release in each, and compares their sums. The second build finds no
// package that the first has compiled.
func (p plan) releaseTwice() error {
	if err := p.settle(); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "parley-twice-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var all [2][]byte
	for i, name := range []string{"here", "another-folder"} {
		one := p
		dir := filepath.Join(work, name)
		one.repo, one.rev, one.out, one.cache = filepath.Join(dir, "clone"), p.commit, filepath.Join(dir, "out"), filepath.Join(dir, "cache")
		if _, err := p.git("clone", "--quiet", "--no-hardlinks", ".", one.repo); err != nil {
			return err
		}
		if err := one.release(); err != nil {
			return err
		}
		if all[i], err = os.ReadFile(filepath.Join(one.out, sumsFile)); err != nil {
			return err
		}
	}
	if err := difference(all[0], all[1]); err != nil {
		return err
	}
	log.Printf("built twice in two folders, with the same sums:\n%s", all[0])
	return nil
}

// difference names the first file whose sum differs.
func difference(a, b []byte) error {
	first, second := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	if len(first) != len(second) {
		return fmt.Errorf("one build made %d files, the other %d", len(first)-1, len(second)-1)
	}
	for i := range first {
		if !bytes.Equal(first[i], second[i]) {
			return fmt.Errorf("the builds differ:\n%s\n%s", first[i], second[i])
		}
	}
	return nil
}
