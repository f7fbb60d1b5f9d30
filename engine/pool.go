package engine

import "sync"

// pools are those of what may block, one for each kind of handler: connect handlers that wait for a slow directory leave
// those alone who are connected.
//
// Owner: immutable after New.
type pools struct{ connect, auth, messages *pool }

func newPools(workers int, survive func(any)) pools {
	p := pools{newPool(workers), newPool(workers), newPool(workers)}
	for _, one := range p.all() {
		one.survive = survive
	}
	return p
}

func (p *pools) all() [3]*pool { return [3]*pool{p.connect, p.auth, p.messages} }

// pool runs what may block. Its goroutines come on demand, up to a bound; a bounded queue stands before them. Work keeps
// no order: what needs order waits on its connection.
//
// Owner: shared (mutex: mu), except survive: immutable once it works.
type pool struct {
	survive func(v any) // is told of a panic outside the application's code; nil: it ends the process
	mu      sync.Mutex
	work    *sync.Cond
	queue   []func()
	head    int
	max     int // goroutines
	running int
	idle    int
	closed  bool
}

const (
	poolQueueMax = 1 << 14
	poolIdleKept = 16
)

func newPool(workers int) *pool {
	p := &pool{max: workers}
	p.work = sync.NewCond(&p.mu)
	return p
}

// submit has f run soon. It reports false where the queue is full. Any goroutine; never waits.
func (p *pool) submit(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.queue)-p.head >= poolQueueMax {
		return false
	}
	p.queue = append(p.queue, f)
	switch {
	case len(p.queue)-p.head <= p.idle:
		p.work.Signal()
	case p.running < p.max:
		p.running++
		go p.run()
	}
	return true
}

// run works until there is nothing to do and enough others wait for more. Where work ends the goroutine
// (runtime.Goexit), another takes its place.
func (p *pool) run() {
	working := true
	defer func() {
		if working {
			go p.run()
		}
	}()
	p.mu.Lock()
	for {
		for p.head == len(p.queue) {
			if p.closed || p.idle >= poolIdleKept {
				p.running--
				working = false
				p.mu.Unlock()
				return
			}
			p.idle++
			p.work.Wait()
			p.idle--
		}
		f := p.pop()
		p.mu.Unlock()
		p.do(f)
		p.mu.Lock()
	}
}

func (p *pool) do(f func()) {
	if p.survive != nil {
		defer func() {
			if v := recover(); v != nil {
				p.survive(v)
			}
		}()
	}
	f()
}

// pop takes the oldest work off the queue, which is not empty. Under mu.
func (p *pool) pop() func() {
	f := p.queue[p.head]
	p.queue[p.head] = nil
	p.head++
	if p.head == len(p.queue) {
		p.queue, p.head = p.queue[:0], 0
	} else if p.head > poolQueueMax {
		p.queue = append(p.queue[:0], p.queue[p.head:]...)
		p.head = 0
	}
	return f
}

// close lets the goroutines end once the queue is empty. It waits only for those that run nothing of the
// application's: a handler that blocks for ever must not block the shutdown.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.queue, p.head = nil, 0
	p.work.Broadcast()
	p.mu.Unlock()
}
