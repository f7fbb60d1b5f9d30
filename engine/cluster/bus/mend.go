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

// After a write that failed, JetStream refuses all others for as long as its process lives, be there room on the disk
// again or not; without an answer, so that workers go on trying. Ending the process at once would be worse: a server that
// finds its disk full when it starts does not start, nor is what was stored to be read meanwhile. So it is started anew
// when its directory can be written to again.
//
// Files that were deleted under it (a cleaner, a volume that was emptied) it would go on writing to, and nothing of that would
// be there after its next start. Then, too, it starts anew at once: the ledgers write what they know once more.

const (
	mendEvery = time.Second
	// probeBytes is what has to fit, lest it break again at once.
	probeBytes = 256 << 10
	// calm is how long a server that was started anew has to last; one that does not is given ever more time, up to mendMax.
	calm    = time.Minute
	mendMax = time.Minute
)

// Unwritable is why a directory, or something in it, cannot be written to by this process; nil where all can. A file of
// another user, or one that may only be read, is as bad as a directory of that kind: each is written to sooner or later.
func Unwritable(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) && path != dir {
				return nil // it has just gone
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

// mend starts the embedded server anew when that is due, until Close.
func (s *Server) mend() {
	defer close(s.mended)
	look := time.NewTicker(mendEvery)
	defer look.Stop()
	var started time.Time // when it was started anew last
	pause := mendEvery
	for {
		select {
		case <-s.stop:
			return
		case <-s.log.broken:
		case <-look.C: // it may also have given up on files as a whole
			if s.embedded().JetStreamEnabled() && s.deleted() == "" {
				continue
			}
		}
		s.lament()
		if time.Since(started) > calm {
			pause = mendEvery
		} else if pause = min(2*pause, mendMax); !s.wait(pause) { // starting anew has not mended it
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

// wait lets a time pass; false after Close.
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
		s.opts.Log.Error("restart bus", "err", err)
	}
	return err == nil
}

// lament says why the server is started anew.
func (s *Server) lament() {
	if gone := s.deleted(); gone != "" {
		s.opts.Log.Error("files of the bus have been deleted; it restarts, and the workers write their sessions, seats and created rooms again", "gone", gone)
		return
	}
	why := "the disk is full, perhaps"
	if err := Unwritable(s.opts.Dir); err != nil {
		why = err.Error()
	}
	s.opts.Log.Error("the bus cannot write its files; sessions, seats and created rooms cannot change until it can",
		"dir", s.opts.Dir, "why", why)
}

// deleted is the directory of a stream that the server still has, and the disk has not; empty where there is none.
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

// writable tries to write a file of some size beside the streams, and looks whether these could be written.
func (s *Server) writable() bool {
	if os.MkdirAll(s.opts.Dir, 0o700) != nil || Unwritable(s.opts.Dir) != nil {
		return false
	}
	name := filepath.Join(s.opts.Dir, "probe")
	defer os.Remove(name)
	return os.WriteFile(name, make([]byte, probeBytes), 0o600) == nil
}
