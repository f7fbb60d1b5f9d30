package reactor

import "time"

const (
	sayFullEvery  = time.Second
	lookFullEvery = 100 * time.Millisecond
)

// tellFull tells the others whether this worker is full: of a change, and that it is full every now and then.
func (a *acceptor) tellFull(full bool) {
	switch told := a.toldFull.Load(); {
	case a.cfg.SayFull == nil:
	case !full:
		a.tellRoom()
	case told == 0 || a.cfg.Ground.Clock()-told >= int64(sayFullEvery):
		a.toldFull.Store(a.cfg.Ground.Clock())
		a.cfg.SayFull(true)
	}
}

// tellRoom tells the others that there is room again, if they were told otherwise. Any goroutine.
func (a *acceptor) tellRoom() {
	if a.toldFull.Load() != 0 && a.toldFull.Swap(0) != 0 {
		a.cfg.SayFull(false)
	}
}
