package guard

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/engine/logs"
)

// Code of the application runs under guard, wherever the server calls it: a panic in it becomes an error, is counted and
// logged, and costs one connection, not the process. rescue.go is about panics of our own code.
//
// runtime.Goexit cannot be recovered: the goroutine ends. guard logs it and lets it happen. The goroutine's owner must cope:
// the pool starts another goroutine; a loop cannot go on (see MustReturn).

// Guard catches panics for a server.
//
// Owner: immutable once the server runs, except the atomic fields.
type Guard struct {
	Ground  *turn.Ground
	Panics  *atomic.Uint64
	Rescues bool   // whether panics of ours are caught
	Walk    func() // takes and frees every lock that code on a loop takes
	// LockWait is how long the walk waits for a lock before it counts as held for ever, in lockWaits parts: time in which the
	// process is stopped costs one part at most.
	LockWait time.Duration

	exited   atomic.Pointer[string] // the last handler that ended its goroutine
	unproven atomic.Int64           // caught panics after which the locks were not checked yet
}

// Run runs f, which calls code of the application for c; c may be nil.
func (s *Guard) Run(name string, c *pending.Conn, f func() error) (err error) {
	returned := false
	defer func() {
		if !returned {
			err = s.Caught(name, c, recover())
		}
	}()
	err = f()
	returned = true
	return err
}

// Caught counts and logs a panic, or, if value is nil, the end of the goroutine.
func (s *Guard) Caught(name string, c *pending.Conn, value any) error {
	s.Panics.Add(1)
	id := ""
	if c != nil {
		id = c.ID().String()
	}
	stack := debug.Stack()
	if value == nil {
		s.exited.Store(&name)
		s.Ground.Log.Error("a handler ended its goroutine with runtime.Goexit, as testing.T.FailNow does",
			"handler", name, "conn", id, "stack", string(stack))
		return nil
	}
	s.Ground.Log.Error("a handler panicked", "handler", name, "conn", id, "panic", value, "stack", string(stack))
	return &panicError{value}
}

// MustReturn is deferred on a goroutine that the server cannot do without: a loop, or the receiver of other workers'
// entries. If a handler has ended that goroutine, the process ends in a panic that is not recovered: gnet's loop is gone in
// the middle of a turn, and its connections would wait for ever.
func (s *Guard) MustReturn(returned *bool) {
	if *returned {
		return
	}
	if v := recover(); v != nil {
		panic(v)
	}
	name := s.exited.Load()
	if name == nil {
		return
	}
	text := fmt.Sprintf("engine: the handler %q ended a goroutine of the server with runtime.Goexit, as testing.T.FailNow "+
		"does: have it return an error, or register it with engine.Offload()", *name)
	s.Ground.Log.Error(text)
	go panic(text)
	select {} // the deferred calls further up this goroutine must not run
}

// panicError is the error of a caught panic.
type panicError struct{ value any }

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.value) }

// guardedLog is the application's log handler. Records are written in the middle of turns. A panic in the handler is
// counted, and the record is lost.
type guardedLog struct {
	slog.Handler
	panics *atomic.Uint64
}

func (g guardedLog) guard() {
	if recover() != nil {
		g.panics.Add(1)
	}
}

func (g guardedLog) Enabled(ctx context.Context, level slog.Level) bool {
	defer g.guard()
	return g.Handler.Enabled(ctx, level)
}

func (g guardedLog) Handle(ctx context.Context, r slog.Record) error {
	defer g.guard()
	return g.Handler.Handle(ctx, r)
}

func (g guardedLog) WithAttrs(list []slog.Attr) (with slog.Handler) {
	with = g
	defer g.guard()
	return guardedLog{g.Handler.WithAttrs(list), g.panics}
}

func (g guardedLog) WithGroup(name string) (with slog.Handler) {
	with = g
	defer g.guard()
	return guardedLog{g.Handler.WithGroup(name), g.panics}
}

// Log returns a logger like l. A panic in its handler loses the record, and is counted.
func (s *Guard) Log(l *slog.Logger) *slog.Logger {
	if logs.IsQueued(l) {
		return l // it recovers its own panics
	}
	return slog.New(guardedLog{l.Handler(), s.Panics})
}
