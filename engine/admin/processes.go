package admin

import (
	"log/slog"
	"os"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/parleyd/parley/engine"
)

// processes collects the kernel's figures of each process of a server with several: process_* with the label worker, which
// is an index, "bus" or "supervisor". Collect reads them from /proc; on systems without /proc they are missing.
type processes struct{ srv Source }

// Describe lists no metric: the processes change.
func (p processes) Describe(chan<- *prometheus.Desc) {}

// Collect reads the figures.
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
		return // it is being restarted
	}
	of := collectors.NewProcessCollector(collectors.ProcessCollectorOpts{PidFn: func() (int, error) { return pid, nil }})
	prometheus.WrapCollectorWith(prometheus.Labels{"worker": label}, of).Collect(out)
}

// registerProcesses registers the figures of Go and the kernel about the server's processes. With several, go_* is the
// supervisor's, and labelled so; for the others see parley_worker_goroutines and parley_worker_heap_bytes.
func registerProcesses(registry *prometheus.Registry, srv Source, log *slog.Logger) {
	if !several(srv.Stats()) {
		registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		return
	}
	registry.MustRegister(rescued{processes{srv}, log})
	prometheus.WrapRegistererWith(prometheus.Labels{"worker": supervisorLabel}, registry).MustRegister(collectors.NewGoCollector())
}

func several(s engine.Stats) bool { return len(s.Workers) > 0 }
