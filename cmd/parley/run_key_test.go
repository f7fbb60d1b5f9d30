package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parleyd/parley/engine/api"
)

// The key of a run lies in a file that only its user can read. The end of an earlier server leaves a later server's key alone.
func TestRunKey(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	_, path, removeFirst, err := makeRunKey(9092)
	if err != nil {
		t.Fatal(err)
	}
	entry, again, remove, err := makeRunKey(9092)
	if err != nil || again != path || path != runKeyPath(9092) {
		t.Fatal(err, path, again)
	}
	removeFirst()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal("the first server has deleted the second's key:", err)
	}
	known, err := api.EntryOf(strings.TrimSpace(string(text)))
	if err != nil || known.SHA256 != entry.SHA256 {
		t.Error(err, known, entry)
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", p, info.Mode(), err)
		}
	}
	remove()
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is left")
	}
}

// A directory that others may enter, or that is none, is refused with advice.
func TestRunKeyPlace(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	own := filepath.Join(dir, "parley")
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := makeRunKey(1); err == nil || !strings.Contains(err.Error(), "chmod 700") || !strings.Contains(err.Error(), "api_keys_file") {
		t.Error(err)
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, own); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := makeRunKey(1); err == nil || !strings.Contains(err.Error(), "is no directory") {
		t.Error("a link to another directory:", err)
	}
}
