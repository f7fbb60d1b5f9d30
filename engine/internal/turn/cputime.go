package turn

import "time"

// cpuTime is what the kernel says of the thread that a loop runs on, in nanoseconds since the thread's start.
type cpuTime struct {
	thread int   // 0: the kernel says nothing
	ran    int64 // on a processor
	waited int64 // ready to run, without a processor
}

// cpuEvery is how often a loop notes its thread's figures. A handler that was slow is judged by what they have grown by
// since: a figure before each handler would cost a third of a small message.
const cpuEvery = 100 * time.Millisecond

// NoteCPU notes the figures of the thread, every now and then.
func (l *Loop) NoteCPU() {
	if l.Now-l.cpuAt >= int64(cpuEvery) {
		l.cpuAt, l.cpu = l.Now, readCPU()
	}
}

// Held counts and logs a handler after which a loop finds that much time gone.
func (l *Loop) Held(handler string, took int64) {
	text, starved, attrs := blame(l.cpu, readCPU(), took)
	if !starved {
		l.Count[CountSlowHandlers].Add(1)
	}
	l.Ground.Log.Warn(text, append([]any{"handler", handler, "took", time.Duration(took)}, attrs...)...)
}

// blame says whether the handler held its loop, or the machine did: a thread that was ready to run and did not for most of
// the time was starved. Both figures are at most what they say. Where the goroutine has changed its thread since they were
// noted, which one that waits of its own accord does, there are none.
func blame(before, after cpuTime, took int64) (text string, starved bool, attrs []any) {
	const held = "a handler held its loop; register it with engine.Offload()"
	if before.thread == 0 || before.thread != after.thread {
		return held, false, nil
	}
	ran, waited := min(after.ran-before.ran, took), min(after.waited-before.waited, took)
	attrs = []any{"cpu", time.Duration(ran), "waited_for_cpu", time.Duration(waited)}
	if waited > took/2 {
		return "a loop stood still while a handler ran: the machine gave it no CPU", true, attrs
	}
	return held, false, attrs
}
