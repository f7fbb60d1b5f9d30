package turn

import "time"

// cpuTime holds the kernel's figures for the thread of a loop, in nanoseconds since the thread's start.
type cpuTime struct {
	thread int   // 0: the kernel has no figures
	ran    int64 // on a processor
	waited int64 // ready to run, without a processor
}

// cpuEvery is how often a loop notes its thread's figures. A slow handler is judged by their growth since then: reading the
// figures before each handler would cost a third of a small message.
const cpuEvery = 100 * time.Millisecond

// NoteCPU notes the thread's figures once in cpuEvery.
func (l *Loop) NoteCPU() {
	if l.Now-l.cpuAt >= int64(cpuEvery) {
		l.cpuAt, l.cpu = l.Now, readCPU()
	}
}

// Held counts and logs a handler that took too long, in nanoseconds.
func (l *Loop) Held(handler string, took int64) {
	text, starved, attrs := blame(l.cpu, readCPU(), took)
	if !starved {
		l.Count[CountSlowHandlers].Add(1)
	}
	l.Ground.Log.Warn(text, append([]any{"handler", handler, "took", time.Duration(took)}, attrs...)...)
}

// blame reports whether the handler held its loop or the machine did: a thread was starved if it was ready to run but did
// not for most of the time. Both figures are upper bounds. If the goroutine has changed its thread since they were noted,
// which happens when it waits of its own accord, there are no figures.
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
