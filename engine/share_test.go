package engine

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// words is a shared set of words.
type words struct {
	mu  sync.Mutex
	all []string
}

func (w *words) Merge(part []byte) error {
	if string(part) == "damaged" {
		return errors.New("damaged")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Contains(w.all, string(part)) {
		w.all = append(w.all, string(part))
	}
	return nil
}

func (w *words) Parts() (parts [][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, word := range w.all {
		parts = append(parts, []byte(word))
	}
	return parts
}

func (w *words) has(word string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Contains(w.all, word)
}

// A change reaches all workers within a second, and a worker that starts later has the whole state.
func TestShare(t *testing.T) {
	var states []*words
	var tell []func([]byte)
	share := func(s *Server) {
		states = append(states, new(words))
		tell = append(tell, s.Share("words", states[len(states)-1]))
	}
	workers := startWorkers(t, 3, nil, share)
	for i := range 3 {
		states[i].Merge(fmt.Append(nil, "from ", i))
		begun := time.Now()
		tell[i](fmt.Append(nil, "from ", i))
		eventually(t, "all know", func() bool {
			return !slices.ContainsFunc(states, func(w *words) bool { return !w.has(fmt.Sprint("from ", i)) })
		})
		if took := time.Since(begun); took > time.Second {
			t.Logf("the others know after %v", took) // a loaded machine
		}
	}
	tell[0]([]byte("known to the others alone"))
	eventually(t, "the others know", func() bool { return states[1].has("known to the others alone") })
	workers.start(nil, share)
	eventually(t, "the new worker has all", func() bool {
		last := states[3]
		return last.has("from 0") && last.has("from 1") && last.has("from 2") && last.has("known to the others alone")
	})
}
