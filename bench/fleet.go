//go:build linux

package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/parleyd/parley/bench/load"
)

// fleet is a load of several processes, each with clients of its own from an address of its own. A process may have
// 20,000 descriptors, and an address 28,000 ports, so 100,000 connections need six of them.
//
// Owner: playFleet.
type fleet struct {
	plan  load.Plan
	parts []*part
}

// part is one process of a fleet.
type part struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// settling is the longest wait after connecting before the server's memory is read: it stores sessions and collects garbage
// meanwhile.
const settling = 8 * time.Second

// beginIn is the time from the order to the beginning: all parts have the order by then.
const beginIn = 200 * time.Millisecond

// reports are one report of every part.
type reports []load.Report

// playFleet plays a plan with p.Parts processes, and merges their results. The run is void if one part's is.
func (b *bench) playFleet(c cell, p load.Plan) (total load.Result, err error) {
	f := &fleet{plan: p}
	defer f.end()
	watchdog := time.AfterFunc(5*time.Minute, f.kill)
	defer watchdog.Stop()
	empty, begun := load.ResidentBytes(p.PID), time.Now()
	if err := f.start(b.self, c.shared); err != nil {
		return total, err
	}
	ready, err := f.hear(&total)
	if err != nil || total.Void != "" {
		return total, err
	}
	total.Connect = time.Since(begun).Seconds()
	total.Workers = ready.workers()
	<-time.After(min(settling, p.Measure))
	total.Memory = (load.ResidentBytes(p.PID) - empty) / float64(p.Conns)
	begin := load.Monotonic() + int64(beginIn)
	if err := f.tell(load.Order{Begin: begin}, &total); err != nil || total.Void != "" {
		return total, err
	}
	<-time.After(beginIn + p.Warmup)
	cpu, parts, machine := load.CPUSeconds(p.PID), f.cpuSeconds(), load.MachineSeconds()
	<-time.After(p.Measure)
	cpu, parts, machine = load.CPUSeconds(p.PID)-cpu, f.cpuSeconds()-parts, load.MachineSeconds()-machine
	total.Others = max(0, machine-cpu-parts) / p.Measure.Seconds() * 100
	sent, err := f.hear(&total)
	if err != nil || total.Void != "" {
		return total, err
	}
	if err := f.tell(load.Order{Owed: sent.owed(p)}, &total); err != nil || total.Void != "" {
		return total, err
	}
	last, err := f.hear(&total)
	if err != nil {
		return total, err
	}
	last.merge(&total, p)
	total.CPU = cpu * 1e6 / float64(max(1, total.Messages))
	return total, nil
}

// start starts the parts: on the last core, or on all cores if they are shared.
func (f *fleet) start(self string, shared bool) error {
	n := f.plan.Parts
	for i := range n {
		p := f.plan
		p.Part, p.Source, p.Sleepy = i, fmt.Sprintf("127.0.0.%d", i+2), shared
		p.Conns = f.plan.Conns / n
		if i < f.plan.Conns%n {
			p.Conns++
		}
		cmd := exec.Command(self, "part")
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := launch(cmd, lastCore, shared); err != nil {
			return err
		}
		f.parts = append(f.parts, &part{cmd, in, json.NewDecoder(bufio.NewReader(out))})
		if err := json.NewEncoder(in).Encode(p); err != nil {
			return fmt.Errorf("tell part %d its plan: %w", i, err)
		}
	}
	return nil
}

// cpuSeconds is the processor time that the parts have used.
func (f *fleet) cpuSeconds() (total float64) {
	for _, p := range f.parts {
		total += load.CPUSeconds(p.cmd.Process.Pid)
	}
	return total
}

// hear takes a report of every part. An error of one part ends the run.
func (f *fleet) hear(total *load.Result) (list reports, err error) {
	for i, p := range f.parts {
		var r load.Report
		if err := p.out.Decode(&r); err != nil {
			return nil, fmt.Errorf("part %d of the load: %w", i, err)
		}
		f.void(total, i, &r)
		list = append(list, r)
	}
	return list, nil
}

// void notes that a part has found the run void.
func (f *fleet) void(total *load.Result, part int, r *load.Report) {
	if r.Result == nil || r.Result.Void == "" || total.Void != "" {
		return
	}
	total.Void = r.Result.Void
	if len(f.parts) > 1 {
		total.Void = fmt.Sprintf("part %d: %s", part, total.Void)
	}
}

// tell gives every part an order. A part that has ended since its last report has found the run void: its next report tells
// the reason.
func (f *fleet) tell(o load.Order, total *load.Result) error {
	for i, p := range f.parts {
		err := json.NewEncoder(p.in).Encode(o)
		if err == nil {
			continue
		}
		var last load.Report
		if p.out.Decode(&last) == nil {
			f.void(total, i, &last)
		}
		if total.Void != "" {
			return nil
		}
		return fmt.Errorf("tell part %d: %w", i, err)
	}
	return nil
}

func (f *fleet) kill() {
	for _, p := range f.parts {
		p.cmd.Process.Kill()
	}
}

func (f *fleet) end() {
	f.kill()
	for _, p := range f.parts {
		p.cmd.Wait()
	}
}

// workers are the counts of connections on each worker, the largest first.
func (list reports) workers() (counts []int) {
	sum := map[uint16]int{}
	for _, r := range list {
		for w, n := range r.Workers {
			sum[w] += n
		}
	}
	for _, n := range sum {
		counts = append(counts, n)
	}
	slices.SortFunc(counts, func(a, b int) int { return cmp.Compare(b, a) })
	return counts
}

// owed is the number of messages sent, by room and publisher.
func (list reports) owed(p load.Plan) [][]uint64 {
	owed := make([][]uint64, p.Rooms)
	for room := range owed {
		owed[room] = make([]uint64, p.Parts*max(1, p.Publishers))
		for _, r := range list {
			if room >= len(r.Sent) {
				continue
			}
			for k, n := range r.Sent[room] {
				owed[room][k] += n
			}
		}
	}
	return owed
}

// merge adds the parts' results up.
func (list reports) merge(total *load.Result, p load.Plan) {
	local, away := hdrhistogram.New(1, 60_000_000, 3), hdrhistogram.New(1, 60_000_000, 3)
	rounds := map[uint64]load.Reach{}
	cpu := 0.0
	for _, r := range list {
		add(local, r.Local)
		add(away, r.Away)
		for n, x := range r.Reached {
			y := rounds[n]
			rounds[n] = load.Reach{Arrived: x.Arrived + y.Arrived, Last: max(x.Last, y.Last)}
		}
		if r.Result != nil {
			total.Messages += r.Result.Messages
			total.Seconds = max(total.Seconds, r.Result.Seconds)
			total.Busy = max(total.Busy, r.Result.Busy)
			cpu += r.Result.ClientCPU * float64(r.Result.Messages)
		}
	}
	total.ClientCPU = cpu / float64(max(1, total.Messages))
	total.Rate = float64(total.Messages) / max(total.Seconds, 1e-9)
	total.Local, total.Away = float64(local.ValueAtQuantile(50)), float64(away.ValueAtQuantile(50))
	var reached []float64
	for n, x := range rounds {
		if want := uint64(p.Conns - p.Rooms); x.Arrived != want && total.Void == "" {
			total.Void = fmt.Sprintf("round %d has reached %d of %d", n, x.Arrived, want)
		}
		reached = append(reached, float64(x.Last)/1e6)
	}
	if len(reached) > 0 {
		total.ReachMost, total.Reach = slices.Max(reached), median(reached)
	} else if p.Together && total.Void == "" {
		total.Void = "no round was measured"
	}
	local.Merge(away)
	if local.TotalCount() > 0 {
		total.P50, total.P99, total.P999 = float64(local.ValueAtQuantile(50)), float64(local.ValueAtQuantile(99)), float64(local.ValueAtQuantile(99.9))
		if text, err := local.Encode(hdrhistogram.V2CompressedEncodingCookieBase); err == nil {
			total.Histogram = string(text)
		}
	}
}

func add(sum *hdrhistogram.Histogram, text string) {
	if h, err := hdrhistogram.Decode([]byte(text)); err == nil {
		sum.Merge(h)
	}
}

// playPart is the main function of one process of a fleet: plan and orders come in, reports go out, a line of JSON each.
func playPart(in io.Reader, out io.Writer) error {
	lines := json.NewDecoder(bufio.NewReader(in))
	var plan load.Plan
	if err := lines.Decode(&plan); err != nil {
		return fmt.Errorf("read plan: %w", err)
	}
	orders := make(chan load.Order)
	go func() {
		defer close(orders)
		for {
			var o load.Order
			if lines.Decode(&o) != nil {
				return
			}
			orders <- o
		}
	}()
	to := json.NewEncoder(out)
	return load.RunPart(plan, orders, func(r load.Report) error { return to.Encode(r) })
}

// output is the output of a server. Its methods are for any goroutine.
//
// Owner: shared (mutex: mu).
type output struct {
	mu    sync.Mutex
	said  bytes.Buffer
	once  sync.Once
	ready chan struct{} // closed at parley's ready line: all workers serve
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.said.Write(p)
	if bytes.Contains(o.said.Bytes(), []byte("ready on ws://")) {
		o.once.Do(func() { close(o.ready) })
	}
	return n, err
}

func (o *output) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.said.String()
}

// await waits until all workers serve: the supervisor opens the port before it starts them.
func (o *output) await() error {
	select {
	case <-o.ready:
		return nil
	case <-time.After(15 * time.Second):
		return fmt.Errorf("the server is not ready: %s", o.text())
	}
}

// stop ends a server with its workers, and waits for the end.
func stop(server *exec.Cmd) {
	server.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(20*time.Second, func() { server.Process.Kill() })
	defer kill.Stop()
	server.Wait()
}
