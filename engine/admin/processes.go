package admin

import (
	"log/slog"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/parleyd/parley/engine"
)

// processes are what the kernel knows of each process of a server that has several: process_* with the label worker, which
// is an index, "bus" or "supervisor". They are read from /proc when they are asked for, and missing where there is none.
type processes struct{ srv Source }

// Describe lists nothing: which processes there are changes.
func (p processes) Describe(chan<- *prometheus.Desc) {}

// Collect asks the kernel.
func (p processes) Collect(out chan<- prometheus.Metric) {
	s := p.srv.Stats()
	for i := range s.Workers {
		collectProcess(strconv.Itoa(s.Workers[i].Index), s.Workers[i].PID, out)
	}
	if s.BusProcess != nil {
		collectProcess("bus", s.BusProcess.PID, out)
	}
	collectProcess(supervisorLabel, os.Getpid(), out)
}

const supervisorLabel = "supervisor"

func collectProcess(label string, pid int, out chan<- prometheus.Metric) {
	if pid == 0 {
		return // it is being started anew
	}
	of := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{PidFn: func() (int, error) { return pid, nil }})
	prometheus.WrapCollectorWith(prometheus.Labels{"worker": label}, of).Collect(out)
}

// registerProcesses registers what Go and the kernel know of the server's process, or processes. With several, go_* is the
// supervisor's, and says so; of the others see parley_worker_goroutines and parley_worker_heap_bytes.
func registerProcesses(registry *prometheus.Registry, srv Source, log *slog.Logger) {
	if !several(srv.Stats()) {
		registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		return
	}
	registry.MustRegister(rescued{processes{srv}, log})
	prometheus.WrapRegistererWith(prometheus.Labels{"worker": supervisorLabel}, registry).MustRegister(collectors.NewGoCollector())
}

func several(s engine.Stats) bool { return len(s.Workers) > 0 }
