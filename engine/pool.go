package engine

import "sync"

// pools are the pools for code that may block, one for each kind of handler: connect handlers that wait for a slow directory
// do not delay handlers of connections that are open.
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

// pool runs functions that may block. Its goroutines are started on demand, up to a bound, and a bounded queue stands before
// them. A pool keeps no order: messages that need order wait on their connection.
//
// Owner: shared (mutex: mu), except survive: immutable once it works.
type pool struct {
	survive func(v any) // called for a panic outside the application's code; nil: the panic ends the process
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

// submit queues f. It reports false if the queue is full. Any goroutine; never waits.
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

// run works until there is nothing to do and enough other goroutines are idle. If work ends the goroutine (runtime.Goexit),
// another takes its place.
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

// close ends the goroutines once the queue is empty. It waits only for goroutines that run no code of the application: a
// handler that blocks for ever must not block the shutdown.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.queue, p.head = nil, 0
	p.work.Broadcast()
	p.mu.Unlock()
}
