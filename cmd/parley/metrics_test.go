package main

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"testing"
)

// The metrics have memory, CPU time and descriptors of every process, each once.
func TestProcessMetrics(t *testing.T) {
	_, admin := freeAddress(t)
	r, stdout, _ := piped(t, nil, "serve", "--port", "0", "--admin-port", admin, "--loops", "1", "--processes", "2")
	r.hears(stdout)
	sample := regexp.MustCompile(`(?m)^(\w+?)(?:\{worker="(\w+)"\})? (\S+)$`)
	want := map[string][]string{
		"process_resident_memory_bytes": {"0", "1", "bus", supervisorRow},
		"process_cpu_seconds_total":     {"0", "1", "bus", supervisorRow},
		"process_open_fds":              {"0", "1", "bus", supervisorRow},
		"parley_worker_goroutines":      {"0", "1", "bus"},
		"parley_worker_heap_bytes":      {"0", "1", "bus"},
		"go_goroutines":                 {supervisorRow},
	}
	r.eventually("every process is measured", func() bool {
		answer, err := http.Get("http://" + r.admin + "/metrics")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		found := map[string]map[string]float64{}
		for _, m := range sample.FindAllStringSubmatch(string(body), -1) {
			if found[m[1]] == nil {
				found[m[1]] = map[string]float64{}
			}
			found[m[1]][m[2]], _ = strconv.ParseFloat(m[3], 64)
		}
		for name, rows := range want {
			if len(found[name]) != len(rows) {
				return false
			}
			for _, row := range rows {
				if found[name][row] <= 0 {
					return false
				}
			}
		}
		return found["process_resident_memory_bytes"]["1"] > 1<<20
	})
	r.stops()
}

const supervisorRow = "supervisor"
