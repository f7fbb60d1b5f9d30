package logs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/logs"
)

// noneLeft wants the queues' goroutines to have ended.
func noneLeft(t *testing.T, before int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); runtime.NumGoroutine() > before; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left, %d were there before", runtime.NumGoroutine(), before)
		}
	}
}

func flushed(t *testing.T, flush func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for flush(ctx) != nil { // in vain as long as nothing has moved since the last time
		<-tick.C
		if ctx.Err() != nil {
			t.Fatal("it is not flushed")
		}
	}
}

// A write never waits for a reader; lines that fit arrive in order, and the others are counted.
func TestWriterNeverBlocks(t *testing.T) {
	defer noneLeft(t, runtime.NumGoroutine())
	in, out := io.Pipe() // nothing reads yet
	lost := make(chan uint64, 1)
	w := logs.NewWriter(out, func(n uint64) { lost <- n })
	line := bytes.Repeat([]byte("x"), 1023)
	const lines = 3000
	for i := range lines {
		copy(line, fmt.Sprintf("%06d ", i))
		w.Write(append(line[:1023:1023], '\n'))
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Flush(over); !errors.Is(err, context.Canceled) || w.Flush(t.Context()) == nil {
		t.Errorf("a flush without a reader: %v", err)
	}
	read := make(chan string)
	go func() {
		all, _ := io.ReadAll(in)
		read <- string(all)
	}()
	flushed(t, w.Flush)
	w.Write([]byte("after\n"))
	flushed(t, w.Flush)
	out.Close()
	kept := strings.Split(strings.TrimSpace(<-read), "\n")
	if n := <-lost; int(n)+len(kept)-1 != lines || len(kept) < 1000 {
		t.Errorf("%d of %d lines arrive, %d are said to be lost", len(kept)-1, lines, n)
	}
	for i, text := range kept[:len(kept)-1] {
		if !strings.HasPrefix(text, fmt.Sprintf("%06d ", i)) {
			t.Fatalf("line %d is %.10q", i, text)
		}
	}
	if kept[len(kept)-1] != "after" {
		t.Errorf("the last line is %.10q", kept[len(kept)-1])
	}
}

// gate is a handler that blocks until it is opened.
type gate struct {
	slog.Handler
	opened chan struct{}
}

func (g gate) Handle(ctx context.Context, r slog.Record) error {
	<-g.opened
	switch r.Message {
	case "panic":
		panic("of the application's handler")
	case "exit":
		runtime.Goexit()
	}
	return g.Handler.Handle(ctx, r)
}

// A handler that blocks delays no caller; one that panics, or ends its goroutine, does not end the queue; the log itself
// says how many lines were dropped.
func TestQueuedNeverBlocks(t *testing.T) {
	defer noneLeft(t, runtime.NumGoroutine())
	var out strings.Builder
	opened := make(chan struct{})
	log := logs.Queued(slog.New(gate{slog.NewTextHandler(&out, nil), opened}))
	if logs.Queued(log) != log {
		t.Error("a queued logger gets a second queue")
	}
	log.Info("panic")
	log.Info("exit")
	const records = 5000
	for i := range records {
		log.Info("said", "n", i)
	}
	log.Debug("not enabled")
	close(opened)
	flushed(t, func(ctx context.Context) error { return logs.Flush(ctx, log) })
	log.With("conn", 7).Info("after", "n", 1)
	flushed(t, func(ctx context.Context) error { return logs.Flush(ctx, log) })
	text := out.String()
	if n := strings.Count(text, "msg=said"); n != 4094 || !strings.Contains(text, "msg=said n=0\n") {
		t.Errorf("%d records arrive", n)
	}
	dropped := 0
	for _, said := range regexp.MustCompile(`level=WARN msg="lines of the log were dropped.*" lines=(\d+)`).FindAllStringSubmatch(text, -1) {
		n, _ := strconv.Atoi(said[1])
		dropped += n
	}
	if dropped != records+2-4094 {
		t.Errorf("%d records are said to be dropped", dropped)
	}
	if !strings.Contains(text, "msg=after conn=7 n=1") || strings.Contains(text, "not enabled") {
		t.Errorf("attributes and levels are lost: %.300s", text[max(0, len(text)-300):])
	}
	if err := logs.Flush(t.Context(), slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}
