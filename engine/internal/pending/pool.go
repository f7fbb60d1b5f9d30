package pending

import "sync"

// Pools are the pools for work that may block or is long, one for each kind: connect handlers that wait for a slow directory
// do not delay handlers of connections that are open. answering is for long answers to other workers' questions.
//
// Owner: immutable after New.
type Pools struct{ Connect, Auth, Messages, Answering *Pool }

// NewPools makes the pools. survive is called for a panic outside the application's code, with the work that panicked; nil: the
// panic ends the process.
func NewPools(workers, answerers int, survive func(where string, v any)) Pools {
	p := Pools{newPool(workers), newPool(workers), newPool(workers), newPool(answerers)}
	if survive == nil {
		return p
	}
	for _, one := range p.All() {
		one.survive = func(v any) { survive("work that may block", v) }
	}
	p.Answering.survive = func(v any) { survive("answering another worker", v) }
	return p
}

// All lists the pools.
func (p *Pools) All() [4]*Pool { return [4]*Pool{p.Connect, p.Auth, p.Messages, p.Answering} }

// Pool runs functions that may block. Its goroutines are started on demand, up to a bound, and a bounded queue stands before
// them. A pool keeps no order: messages that need order wait on their connection.
//
// Owner: shared (mutex: mu), except survive: immutable once it works.
type Pool struct {
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

// Bounds of a pool.
const (
	poolQueueMax = 1 << 14
	IdleKept     = 16 // goroutines that stay without work
)

func newPool(workers int) *Pool {
	p := &Pool{max: workers}
	p.work = sync.NewCond(&p.mu)
	return p
}

// Submit queues f. It reports false if the queue is full. Any goroutine; never waits.
func (p *Pool) Submit(f func()) bool {
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
func (p *Pool) run() {
	working := true
	defer func() {
		if working {
			go p.run()
		}
	}()
	p.mu.Lock()
	for {
		for p.head == len(p.queue) {
			if p.closed || p.idle >= IdleKept {
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

func (p *Pool) do(f func()) {
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
func (p *Pool) pop() func() {
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

// Close ends the goroutines once the queue is empty. It waits only for goroutines that run no code of the application: a
// handler that blocks for ever must not block the shutdown.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.queue, p.head = nil, 0
	p.work.Broadcast()
	p.mu.Unlock()
}

// RunOne runs the oldest work on the caller's goroutine, for a pool without goroutines, and reports whether there was any.
func (p *Pool) RunOne() bool {
	p.mu.Lock()
	if p.head == len(p.queue) {
		p.mu.Unlock()
		return false
	}
	f := p.pop()
	p.mu.Unlock()
	f()
	return true
}

// Waits is the amount of work that no goroutine has begun. Any goroutine.
func (p *Pool) Waits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) - p.head
}

// Running is the number of the pool's goroutines. Any goroutine.
func (p *Pool) Running() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running
}
