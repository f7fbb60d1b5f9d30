package bus

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/sys/unix"
)

// After a failed write, JetStream ignores all further writes for as long as its process lives, even once the disk has
// space again; workers get no answer, and go on trying. Ending the process at once would be worse: a server does not start
// on a full disk, and until then stored records could not be read. So the embedded server is started anew when its
// directory can be written to again.
//
// If its files are deleted (by a cleaner, or with the volume's contents), the server would go on writing to the deleted
// files, and lose everything with its next start. Then it starts anew at once, and the ledgers write their records again.

const (
	mendEvery = time.Second
	// probeBytes must fit on the disk, or the next write would fail again.
	probeBytes = 256 << 10
	// calm is how long a server that was started anew has to last; if it does not, the pause before the next start doubles,
	// up to mendMax.
	calm    = time.Minute
	mendMax = time.Minute
)

// Unwritable returns an error if this process cannot write to a directory or to anything in it. Files count like
// directories: each of them is written to sooner or later.
func Unwritable(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != dir {
				return nil // deleted meanwhile
			}
			return err
		}
		need := uint32(unix.R_OK | unix.W_OK)
		if entry.IsDir() {
			need |= unix.X_OK
		}
		if err := unix.Faccessat(unix.AT_FDCWD, path, need, unix.AT_EACCESS); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return &fs.PathError{Op: "write", Path: path, Err: err}
		}
		return nil
	})
}

// mend starts the embedded server anew when its files are broken or deleted, until Close.
func (s *Server) mend() {
	defer close(s.mended)
	look := time.NewTicker(mendEvery)
	defer look.Stop()
	var started time.Time // the last time that mend started it anew
	pause := mendEvery
	for {
		select {
		case <-s.stop:
			return
		case <-s.log.broken:
		case <-look.C: // the server may also have switched JetStream off
			if s.embedded().JetStreamEnabled() && s.deleted() == "" {
				continue
			}
		}
		s.logFault()
		if time.Since(started) > calm {
			pause = mendEvery
		} else if pause = min(2*pause, mendMax); !s.wait(pause) { // the last start did not help
			return
		}
		if !s.until(s.writable) {
			return
		}
		s.opts.Log.Warn("the bus can write its files again, and restarts", "dir", s.opts.Dir)
		end(s.embedded())
		if !s.until(s.relaunch) {
			return
		}
		started = time.Now()
		select {
		case <-s.log.broken: // of the server that has ended
		default:
		}
	}
}

// wait sleeps for d; false after Close.
func (s *Server) wait(d time.Duration) bool {
	over := time.NewTimer(d)
	defer over.Stop()
	select {
	case <-over.C:
		return true
	case <-s.stop:
		return false
	}
}

// until calls f every second until it returns true; false after Close.
func (s *Server) until(f func() bool) bool {
	again := time.NewTicker(mendEvery)
	defer again.Stop()
	for !f() {
		select {
		case <-again.C:
		case <-s.stop:
			return false
		}
	}
	return true
}

func (s *Server) relaunch() bool {
	err := s.launch()
	if err != nil && err != errClosed {
		s.opts.Log.Error("the bus cannot be restarted; the server tries again in a second", "err", err)
	}
	return err == nil
}

// logFault says why the server is started anew.
func (s *Server) logFault() {
	if gone := s.deleted(); gone != "" {
		s.opts.Log.Error("files of the bus have been deleted; it restarts, and the workers write their sessions, seats and created rooms again", "gone", gone)
		return
	}
	why := "the disk may be full"
	if err := Unwritable(s.opts.Dir); err != nil {
		why = err.Error()
	}
	s.opts.Log.Error("the bus cannot write its files; sessions, seats and created rooms cannot change until it can: make space, or give this user the right to write",
		"dir", s.opts.Dir, "why", why)
}

// deleted is the directory of a stream that the server has and the disk has not; empty where there is none.
func (s *Server) deleted() string {
	all, err := s.embedded().Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	if err != nil {
		return ""
	}
	for _, account := range all.AccountDetails {
		for _, stream := range account.Streams {
			dir := filepath.Join(s.opts.Dir, "jetstream", account.Name, "streams", stream.Name)
			if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
				return dir
			}
		}
	}
	return ""
}

// writable tries to write a file of probeBytes beside the streams, and checks the permissions of all files.
func (s *Server) writable() bool {
	if os.MkdirAll(s.opts.Dir, 0o700) != nil || Unwritable(s.opts.Dir) != nil {
		return false
	}
	name := filepath.Join(s.opts.Dir, "probe")
	defer os.Remove(name)
	return os.WriteFile(name, make([]byte, probeBytes), 0o600) == nil
}
