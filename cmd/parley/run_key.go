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

// makeRunKey makes a key for this run, for the API on a port, and writes it to its file. remove deletes the file.
func makeRunKey(port int) (entry api.KeyEntry, path string, remove func(), err error) {
	text, entry, err := api.CreateKey(runKeyID)
	if err != nil {
		return entry, "", nil, err
	}
	entry.Scopes = []string{"all"}
	if err := makePrivate(runDir()); err != nil {
		return entry, "", nil, fmt.Errorf("keep the API's key of this run: %w; name keys in api_keys_file, or set api_port to 0", err)
	}
	path = runKeyPath(port)
	fresh, err := os.CreateTemp(runDir(), ".api-*") // of mode 0600
	if err != nil {
		return entry, "", nil, fmt.Errorf("keep the API's key of this run: %w", err)
	}
	_, err = fresh.WriteString(text + "\n")
	if err = errors.Join(err, fresh.Close()); err == nil {
		err = os.Rename(fresh.Name(), path)
	}
	if err != nil {
		os.Remove(fresh.Name())
		return entry, "", nil, fmt.Errorf("keep the API's key of this run: %w", err)
	}
	return entry, path, func() { removeOwn(path, text) }, nil
}

// removeOwn deletes the file, unless a later server has written its own key to it.
func removeOwn(path, text string) {
	if found, err := os.ReadFile(path); err == nil && string(found) == text+"\n" {
		os.Remove(path)
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
