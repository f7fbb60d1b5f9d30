package bus

import (
	"os"
	"path/filepath"
	"time"
)

// After a write that failed, JetStream refuses all others for as long as its process lives, be there room on the disk
// again or not; without an answer, so that workers go on trying. Ending the process at once would be worse: a server that
// finds its disk full when it starts does not start, nor is what was stored to be read meanwhile. So it is started anew
// when its directory can be written to again.

const (
	mendEvery = time.Second
	// probeBytes is what has to fit, lest it break again at once.
	probeBytes = 256 << 10
)

// mend starts the embedded server anew when that is due, until Close.
func (s *Server) mend() {
	defer close(s.mended)
	look := time.NewTicker(mendEvery)
	defer look.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-s.log.broken:
		case <-look.C: // it may also have given up on files as a whole
			if s.embedded().JetStreamEnabled() {
				continue
			}
		}
		s.opts.Log.Error("the bus cannot write its files; sessions, seats and created rooms stay as they are until it can", "dir", s.opts.Dir)
		if !s.until(s.writable) {
			return
		}
		s.opts.Log.Warn("the bus can write its files again, and starts anew", "dir", s.opts.Dir)
		end(s.embedded())
		if !s.until(s.relaunch) {
			return
		}
		select {
		case <-s.log.broken: // of the server that has ended
		default:
		}
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
		s.opts.Log.Error("start bus anew", "err", err)
	}
	return err == nil
}

// writable tries to write a file of some size beside the streams.
func (s *Server) writable() bool {
	name := filepath.Join(s.opts.Dir, "probe")
	defer os.Remove(name)
	return os.WriteFile(name, make([]byte, probeBytes), 0o600) == nil
}
