package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parleyd/parley/engine/api"
)

// The key of a run lies in a file that only its user can read. The end of an earlier server leaves a later server's key alone, and so
// does a server that does not get the port.
func TestRunKey(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_RUNTIME_DIR", dir)
	var both [2]*runKey
	for i := range both {
		var err error
		if both[i], err = newRunKey(9092); err != nil || both[i].path != runKeyPath(9092) {
			t.Fatal(err)
		}
		if err = both[i].write(); err != nil {
			t.Fatal(err)
		}
	}
	path := both[1].path
	both[0].remove()
	if third, err := newRunKey(9092); err != nil { // of a server that does not get the port
		t.Fatal(err)
	} else {
		third.remove()
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal("the first server has deleted the second's key:", err)
	}
	known, err := api.EntryOf(strings.TrimSpace(string(text)))
	if err != nil || known.SHA256 != both[1].entry.SHA256 {
		t.Error(err, known)
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v %v", p, info.Mode(), err)
		}
	}
	both[1].remove()
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
	if _, err := newRunKey(1); err == nil || !strings.Contains(err.Error(), "chmod 700") || !strings.Contains(err.Error(), "api_keys_file") {
		t.Error(err)
	}
	if err := os.Remove(own); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, own); err != nil {
		t.Fatal(err)
	}
	if _, err := newRunKey(1); err == nil || !strings.Contains(err.Error(), "is no directory") {
		t.Error("a link to another directory:", err)
	}
}
