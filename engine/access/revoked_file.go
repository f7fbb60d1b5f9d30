package access

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// stateBytesMax is more than a full state can have.
const stateBytesMax = RevocationsMax * (2 + 2 + jtiBytesMax + 3*10)

// Names beside the file of revocations.
const (
	formerSuffix  = ".former"  // the good copy before the last
	damagedSuffix = ".damaged" // a file that could not be read, for the operator to look at
	partSuffix    = ".part"    // a copy that is being written
)

// Save writes the state to a file, whole or not at all, whenever the process or the machine dies. The copy before
// it stays as a second file, which Load reads where the first one is damaged; a damaged first file never takes its
// place. One caller at a time for each path. It blocks on the disk.
func (r *Revocations) Save(path string) error {
	if err := writePart(path+partSuffix, r.Encode()); err != nil {
		return fmt.Errorf("save revocations: %w", err)
	}
	_, err := readState(path)
	switch {
	case err == nil:
		err = os.Rename(path, path+formerSuffix)
	case errors.Is(err, ErrDamaged):
		err = os.Rename(path, path+damagedSuffix)
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	}
	if err == nil {
		err = os.Rename(path+partSuffix, path)
	}
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("save revocations: %w", err)
	}
	return nil
}

// writePart writes a file and waits until the disk has it.
func writePart(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Load merges a file into the state. Where the file is damaged or missing, it merges the copy before it; a damaged
// file is an error that wraps ErrDamaged and names the file, also if the copy could be read: revocations that are newer
// than that copy may be lost. Neither file changes. Without any file there is nothing to load. It blocks on the disk.
func (r *Revocations) Load(path string, now time.Time) error {
	state, err := readState(path)
	if err != nil {
		former, formerErr := readState(path + formerSuffix)
		switch missing := errors.Is(err, fs.ErrNotExist); {
		case formerErr == nil && missing: // the process died between two renames
			err = nil
		case missing && errors.Is(formerErr, fs.ErrNotExist):
			return nil
		case formerErr != nil && !errors.Is(formerErr, fs.ErrNotExist):
			err = errors.Join(err, formerErr)
		}
		state = former
	}
	if state != nil {
		if _, mergeErr := r.Merge(state, now); mergeErr != nil {
			err = errors.Join(err, mergeErr)
		}
	}
	if err != nil {
		return fmt.Errorf("load revocations: %w", err)
	}
	return nil
}

// readState returns the bytes of a file that hold a state; the error for others names the file and wraps ErrDamaged.
func readState(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// A longer file is damaged, and decode says so.
	text, err := io.ReadAll(io.LimitReader(f, stateBytesMax))
	if err != nil {
		return nil, err
	}
	if _, err = decode(text); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return text, nil
}
