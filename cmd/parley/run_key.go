package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/parleyd/parley/engine/api"
)

// A server on loopback whose operator has given no key makes one for its run. Its text lies in a file that only this user can
// read, under a name that the port gives: so `parley publish` and its like find it without a flag.

// runKeyID is the id of such a key, in the log.
const runKeyID = "run"

// runKeyPath is the file of the key of a server on a port.
func runKeyPath(port int) string { return filepath.Join(runDir(), runKeyName(port)) }

func runKeyName(port int) string { return "api-" + strconv.Itoa(port) + ".key" }

// runDir is this user's directory for files of a run.
func runDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, "parley")
	}
	return sharedRunDir()
}

// sharedRunDir is the directory of a process that has no XDG_RUNTIME_DIR, such as a job of cron.
func sharedRunDir() string {
	return filepath.Join(os.TempDir(), "parley-"+strconv.Itoa(os.Getuid()))
}

// findRunKey is the path of the newest file with the key of a server of this user, which serves the API on this machine at an
// address; "" if there is none. A server that was killed leaves its file.
func findRunKey(at *url.URL) (path string) {
	port, err := strconv.Atoi(at.Port())
	if err != nil || !isLoopback(at.Hostname()) {
		return ""
	}
	var newest time.Time
	for _, dir := range []string{runDir(), sharedRunDir()} {
		if checkPrivate(dir) != nil {
			continue // another user may have put a file into it
		}
		found := filepath.Join(dir, runKeyName(port))
		if stat, err := os.Stat(found); err == nil && stat.Mode().IsRegular() && stat.ModTime().After(newest) {
			path, newest = found, stat.ModTime()
		}
	}
	return path
}

// runKey is the key of a server's run.
//
// Owner: the command; immutable.
type runKey struct {
	entry      api.KeyEntry
	text, path string
}

// newRunKey makes a key for this run, for the API on a port.
func newRunKey(port int) (*runKey, error) {
	text, entry, err := api.CreateKey(runKeyID)
	if err != nil {
		return nil, err
	}
	entry.Scopes = []string{"all"}
	if err := makePrivate(runDir()); err != nil {
		return nil, fmt.Errorf("keep the API's key of this run: %w; name keys in api_keys_file, or set api_port to 0", err)
	}
	return &runKey{entry, text, runKeyPath(port)}, nil
}

// write puts the key into its file, once the port of the API is this server's: a server that does not get the port leaves the file
// of the server that has it alone.
func (k *runKey) write() error {
	fresh, err := os.CreateTemp(filepath.Dir(k.path), ".api-*") // of mode 0600
	if err != nil {
		return fmt.Errorf("keep the API's key of this run: %w", err)
	}
	_, err = fresh.WriteString(k.text + "\n")
	if err = errors.Join(err, fresh.Close()); err == nil {
		err = os.Rename(fresh.Name(), k.path)
	}
	if err != nil {
		os.Remove(fresh.Name())
		return fmt.Errorf("keep the API's key of this run: %w", err)
	}
	return nil
}

// remove deletes the file, unless a later server has written its own key to it.
func (k *runKey) remove() {
	if found, err := os.ReadFile(k.path); err == nil && string(found) == k.text+"\n" {
		os.Remove(k.path)
	}
}

// makePrivate makes a directory that only this user can read. One that another user has made in a shared place, or that
// others may enter, is refused.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return checkPrivate(dir)
}

func checkPrivate(dir string) error {
	found, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := found.Sys().(*syscall.Stat_t)
	switch {
	case !found.IsDir():
		return fmt.Errorf("%s is no directory", dir)
	case ok && int(stat.Uid) != os.Getuid():
		return fmt.Errorf("%s belongs to another user", dir)
	case found.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("others may enter %s; chmod 700 it", dir)
	}
	return nil
}
