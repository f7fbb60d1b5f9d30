// Package logs lets a goroutine log without waiting for the reader of the log.
//
// An event loop, a supervisor, or a goroutine that waits for signals must go on while a pipe is full or an application's
// handler blocks: [Queued] and [Writer] take each line at once, and a goroutine of the queue's own passes it on. The queue
// is bounded. Lines that do not fit are dropped and counted, and the count is logged once the queue moves again.
//
// What it refuses to do: keep lines beyond the end of the process. Call [Flush] or [Writer.Flush] before it.
//
// Start reading at [Queued].
package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	recordsMax = 4096
	bytesMax   = 1 << 20
)

// queue passes items on in their order. Its goroutine lives while items wait.
//
// Owner: shared (mutex: mu).
type queue[T any] struct {
	most int            // sum of the items' sizes; the first item may be larger
	out  func(T)        // may block
	lost func(n uint64) // may block; gets the number of dropped items

	mu      sync.Mutex
	waiting []sized[T]
	size    int // of the waiting items and the one that is being passed on
	dropped uint64
	busy    bool
	idle    chan struct{} // closed when the queue is empty; nil unless a Flush waits
	stuck   bool          // a Flush has timed out, and no item was passed on since
}

// sized is an item with its share of the queue's bound.
type sized[T any] struct {
	item T
	size int
}

func (q *queue[T]) put(item T, size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.size > 0 && q.size+size > q.most {
		q.dropped++
		return
	}
	q.waiting, q.size = append(q.waiting, sized[T]{item, size}), q.size+size
	if !q.busy {
		q.busy = true
		go q.run()
	}
}

// next takes the first waiting item. If none waits, it takes the number of items that were dropped, behind all others. If
// there are none either, the goroutine must end.
func (q *queue[T]) next() (first []sized[T], dropped uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) > 0 {
		first, q.waiting = q.waiting[:1:1], q.waiting[1:]
		return first, 0
	}
	dropped, q.waiting, q.dropped = q.dropped, nil, 0
	if q.busy = dropped > 0; !q.busy && q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
	return nil, dropped
}

func (q *queue[T]) run() {
	returned := false
	defer func() {
		if !returned {
			go q.run() // a handler called runtime.Goexit
		}
	}()
	for {
		first, dropped := q.next()
		switch {
		case first != nil:
			q.pass(first[0].item, first[0].size)
			first[0] = sized[T]{} // the array must not keep the item alive
		case dropped == 0:
			returned = true
			return
		case q.lost != nil:
			q.say(dropped)
		}
	}
}

func (q *queue[T]) say(dropped uint64) {
	defer func() { recover() }()
	q.lost(dropped)
}

// pass passes an item on. If the application's handler panics or calls runtime.Goexit, the item is lost, and counted.
func (q *queue[T]) pass(item T, size int) {
	passed := false
	defer func() {
		recover()
		q.mu.Lock()
		defer q.mu.Unlock()
		q.size -= size
		q.stuck = false
		if !passed {
			q.dropped++
		}
	}()
	q.out(item)
	passed = true
}

func (q *queue[T]) flush(ctx context.Context) error {
	q.mu.Lock()
	switch {
	case !q.busy:
		q.mu.Unlock()
		return nil
	case q.stuck: // so that several callers in one process wait once, and not one after the other
		q.mu.Unlock()
		return errStuck
	case q.idle == nil:
		q.idle = make(chan struct{})
	}
	idle := q.idle
	q.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		q.mu.Lock()
		q.stuck = q.busy
		q.mu.Unlock()
		return fmt.Errorf("flush log: %w", ctx.Err())
	}
}

var errStuck = errors.New("flush log: no line was written since the last flush timed out")

// Writer passes whole lines on to another writer. It is for any goroutine.
type Writer struct{ queue queue[[]byte] }

// NewWriter makes a writer that queues up to 1 MiB for to. lost, unless it is nil, gets the number of writes that were
// dropped since its last call; it runs on the queue's goroutine, and may write to another Writer, not to this one.
func NewWriter(to io.Writer, lost func(writes uint64)) *Writer {
	return &Writer{queue[[]byte]{most: bytesMax, lost: lost, out: func(line []byte) {
		to.Write(line) // an error loses the line, as with every log
	}}}
}

// Write never blocks and never fails. It keeps no reference to line.
func (w *Writer) Write(line []byte) (int, error) {
	w.queue.put(bytes.Clone(line), len(line))
	return len(line), nil
}

// Flush waits until all lines are written, or ctx is done. If no line was written since a Flush that timed out, it fails at
// once.
func (w *Writer) Flush(ctx context.Context) error { return w.queue.flush(ctx) }

// handler queues records for another handler. It is for any goroutine.
type handler struct {
	next  slog.Handler
	queue *queue[entry]
}

// entry is a record and its handler, which has the groups and attributes of its logger.
type entry struct {
	ctx    context.Context
	to     slog.Handler
	record slog.Record
}

// Queued makes a logger that never blocks from one that may: its handler runs on a goroutine of the queue's own, one record
// at a time. The queue keeps up to 4,096 records. A logger that Queued has made is returned unchanged.
func Queued(log *slog.Logger) *slog.Logger {
	if IsQueued(log) {
		return log
	}
	next := log.Handler()
	return slog.New(&handler{next, &queue[entry]{
		most: recordsMax,
		out:  func(e entry) { e.to.Handle(e.ctx, e.record) },
		lost: func(n uint64) {
			r := slog.NewRecord(time.Now(), slog.LevelWarn, "lines of the log were dropped: it was not read in time", 0)
			r.AddAttrs(slog.Uint64("lines", n))
			next.Handle(context.Background(), r)
		},
	}})
}

// IsQueued reports whether Queued has made the logger.
func IsQueued(log *slog.Logger) bool {
	_, ok := log.Handler().(*handler)
	return ok
}

// Flush waits until all records of a logger that Queued has made are handled, or ctx is done. With any other logger it
// returns at once. If no record was handled since a Flush that timed out, it fails at once.
func Flush(ctx context.Context, log *slog.Logger) error {
	if h, ok := log.Handler().(*handler); ok {
		return h.queue.flush(ctx)
	}
	return nil
}

// Enabled asks the handler behind the queue.
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle queues the record.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.queue.put(entry{context.WithoutCancel(ctx), h.next, r.Clone()}, 1)
	return nil
}

// WithAttrs shares the queue.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.next.WithAttrs(attrs), h.queue}
}

// WithGroup shares the queue.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{h.next.WithGroup(name), h.queue}
}
