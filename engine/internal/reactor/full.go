package reactor

import "time"

const (
	sayFullEvery  = time.Second
	lookFullEvery = 100 * time.Millisecond
)

// sayFull tells the others whether this worker is full: of a change, and that it is full every now and then.
func (a *acceptor) sayFull(full bool) {
	switch last := a.saidFull.Load(); {
	case a.cfg.SayFull == nil:
	case !full:
		a.sayFree()
	case last == 0 || a.cfg.Ground.Clock()-last >= int64(sayFullEvery):
		a.saidFull.Store(a.cfg.Ground.Clock())
		a.cfg.SayFull(true)
	}
}

// sayFree tells the others that this worker is no longer full, if it has said that it is. Any goroutine.
func (a *acceptor) sayFree() {
	if a.saidFull.Load() != 0 && a.saidFull.Swap(0) != 0 {
		a.cfg.SayFull(false)
	}
}
