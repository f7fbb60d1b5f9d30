package engine

import (
	"errors"
	"strings"
	"testing"
)

// A reader that takes what it can is not slow, however large the messages are: what is being written does not count, and
// a burst that it is a little late to read fits below the bounds, which follow from message_bytes_max.
func TestLargeMessagesToHealthyReceivers(t *testing.T) {
	for _, row := range []struct{ message, size, burst int }{
		{0, 64 << 10, 20}, // the default
		{8 << 20, 6 << 20, 5},
		{8 << 20, 8 << 20, 4},
	} {
		w := newScript(t, func(c *Config) { c.MessageBytesMax = row.message })
		c := w.open(0)
		w.read(c)
		w.takes[int(c.wire.Fd)] = 0 // it is off the CPU
		text := M{"type": "m", "pad": strings.Repeat("x", row.size-40)}
		for range row.burst {
			c.Send(text)
			w.drain()
		}
		for range 3 * row.burst {
			w.takes[int(c.wire.Fd)] = row.size / 3
			w.server.Writable(c)
			w.drain()
			w.now += w.server.Server.cfg.BacklogGrace / 100
			w.server.Tick()
			w.drain()
		}
		if c.Cause() != CauseNone || c.wire.Backlog > row.size {
			t.Errorf("messages of up to %d bytes: %d of %d bytes end their receiver: %s", row.message, row.burst, row.size, c.Cause())
		}
	}
}

// One frame alone never ends its receiver, whatever its length; what waits behind it does.
func TestFrameThatIsWrittenDoesNotCount(t *testing.T) {
	w := newScript(t, func(c *Config) { c.MessageBytesMax, c.BacklogSoftBytes, c.BacklogHardBytes = 1<<10, 1<<10, 4<<10 })
	c := w.open(0)
	w.read(c)
	w.takes[int(c.wire.Fd)] = 100
	c.Send(M{"type": "large", "pad": strings.Repeat("x", 100<<10)})
	w.drain()
	w.now += 2 * w.server.Server.cfg.BacklogGrace
	w.server.Tick()
	w.drain()
	if c.Cause() != CauseNone {
		t.Fatal("a frame that is being written ends its receiver:", c.Cause())
	}
	c.Send(M{"type": "next", "pad": strings.Repeat("x", 5<<10)})
	w.drain()
	if c.Cause() != CauseSlow {
		t.Error("what waits behind it is over the bound, and the cause is", c.Cause())
	}
}

// Bounds follow one another, and those that contradict one another are refused with the key and what to do.
func TestBacklogBounds(t *testing.T) {
	for _, row := range []struct {
		message, soft, hard int
		wantSoft, wantHard  int // 0: refused
	}{
		{0, 0, 0, 256 << 10, 2 << 20},
		{1 << 20, 0, 0, 4 << 20, 16 << 20},
		{8 << 20, 0, 0, 32 << 20, 64 << 20},
		{8 << 20, 0, 8 << 20, 8 << 20, 8 << 20},
		{0, 3 << 20, 0, 3 << 20, 3 << 20},
		{0, 0, 64 << 10, 64 << 10, 64 << 10},
		{8 << 20, 0, 1 << 20, 0, 0},
		{0, 128 << 10, 100 << 10, 0, 0},
	} {
		c := Config{MessageBytesMax: row.message, BacklogSoftBytes: row.soft, BacklogHardBytes: row.hard}
		got, err := c.withDefaults()
		if wrong, ok := errors.AsType[*ConfigError](err); row.wantHard == 0 {
			if !ok || wrong.Key != "backlog_hard_bytes" {
				t.Errorf("%+v: %v", row, err)
			}
		} else if err != nil || got.BacklogSoftBytes != row.wantSoft || got.BacklogHardBytes != row.wantHard {
			t.Errorf("%+v: soft %d, hard %d, %v", row, got.BacklogSoftBytes, got.BacklogHardBytes, err)
		}
	}
}
