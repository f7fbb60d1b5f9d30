//go:build linux

package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/parleyd/parley/bench/load"
)

// row is one server in one scenario.
//
// Owner: immutable once made.
type row struct {
	server  string
	figure  float64   // median over the rounds
	ratios  []float64 // of each round to the floor, or the cell's base, in the same round
	ratio   float64   // their median
	added   float64   // median over the rounds of the difference to the same
	spread  float64   // largest less smallest figure, as a share of the median
	rate    float64
	client  float64
	p50     float64
	p99     float64
	allocs  float64
	reach   float64
	faults  float64
	resets  float64
	frame   float64
	counted float64
	runs    int
	voids   []string
}

// report writes the table and the plots, and prints their paths.
func (b *bench) report(list []cell) error {
	var out strings.Builder
	fmt.Fprintf(&out, "# Benchmark\n\nParley beside other servers, measured by the same load on the same machine. [Performance](../performance.md) says where "+
		"the time goes.\n\n| | |\n|---|---|\n| machine | %s; the server has one core, the load generator the other, which it never lets sleep |\n"+
		"| date | %s, commit %s |\n| command | `make bench%s`, %d rounds, in which the servers take turns; medians. Above each table is the command for "+
		"that table alone |\n| peers | %s; bun's server is built on uWebSockets |\n| better | lower, in all columns except messages a second |\n"+
		"| *ratio* | to the floor of the same round, an epoll loop that does nothing but read and write, or to the server that has 1.00; floor-ring is that loop with its reads and writes in io_uring |\n"+
		"| *spread* | the largest round less the smallest, as a share of the median |\n\n",
		b.machine, time.Now().UTC().Format("2 January 2006"), b.commit, map[bool]string{true: "-full"}[b.full], b.rounds, b.versions())
	for _, name := range slices.Sorted(maps.Keys(b.missing)) {
		fmt.Fprintf(&out, "Missing: %s (%s).\n\n", name, b.missing[name])
	}
	void := 0
	for _, c := range list {
		rows := b.rows(c)
		writeTable(&out, c, rows)
		writeTargets(&out, c, rows)
		for _, r := range rows {
			void += len(r.voids)
		}
		if err := plotBars(c.title, c.figure.label(), bars(rows, func(r row) float64 { return r.figure }), filepath.Join(b.out, c.name+".svg")); err != nil {
			return err
		}
		if c.closed() {
			if err := plotBars(c.title, rateFigure.label(), bars(rows, func(r row) float64 { return r.rate }), filepath.Join(b.out, c.name+"-rate.svg")); err != nil {
				return err
			}
		}
		b.writeNotes(&out, c)
		for _, name := range slices.Sorted(maps.Keys(c.apart)) {
			fmt.Fprintf(&out, "Without %s: %s.\n\n", name, c.apart[name])
		}
		if c.timed() {
			if err := b.plotLatency(c, filepath.Join(b.out, c.name+"-distribution.svg")); err != nil {
				return err
			}
		}
	}
	for _, group := range groups(list) {
		b.writeGrowth(&out, group)
		if err := b.plotGrowth(group, filepath.Join(b.out, group[0].group+".svg")); err != nil {
			return err
		}
	}
	return b.publish(out.String(), "README.md", void)
}

// publish writes and prints a report. Void runs are an error.
func (b *bench) publish(text, name string, void int) error {
	path := filepath.Join(b.out, name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return err
	}
	fmt.Print("\n", text, "\nwritten to ", path, "; every run is a line of ", filepath.Join(b.out, "runs.jsonl"), "\n")
	if void > 0 {
		return fmt.Errorf("%d runs are void: see the table", void)
	}
	return nil
}

// writeNotes writes results that have no column in a cell's table, and parley's arguments if the cell has any.
func (b *bench) writeNotes(out *strings.Builder, c cell) {
	if len(c.args) > 0 {
		fmt.Fprintf(out, "`parley serve %s`.\n\n", strings.Join(c.args, " "))
	}
	for _, r := range b.records {
		if note := c.note(r.Result); r.Scenario == c.name && note != "" {
			fmt.Fprintf(out, "- Round %d, %s: %s.\n\n", r.Round, r.Server, note)
		}
	}
}

// base is the server to which a cell's ratios are.
func (b *bench) base(c cell) string {
	if b.earlier.program != "" {
		return before
	}
	return cmp.Or(c.base, "floor")
}

// rows are the servers of a cell, the best first.
func (b *bench) rows(c cell) (rows []row) {
	base := map[string]map[int]float64{}
	by := map[string][]record{}
	for _, r := range b.records {
		if r.Scenario != c.name {
			continue
		}
		by[r.Server] = append(by[r.Server], r)
		if base[r.Server] == nil {
			base[r.Server] = map[int]float64{}
		}
		if r.Result.Void == "" {
			base[r.Server][r.Round] = c.figure.of(r.Result)
		}
	}
	for name, records := range by {
		x := row{server: name}
		var figures, added, rates, clients, p50, p99, reaches []float64
		for _, r := range records {
			if r.Result.Void != "" {
				x.voids = append(x.voids, r.Result.Void)
				continue
			}
			f := c.figure.of(r.Result)
			figures, rates, clients = append(figures, f), append(rates, r.Result.Rate), append(clients, r.Result.ClientCPU)
			p50, p99, x.allocs = append(p50, r.Result.P50), append(p99, r.Result.P99), max(x.allocs, r.Result.Allocs)
			reaches, x.frame = append(reaches, r.Result.Reach), r.Result.Frame
			x.counted = max(x.counted, r.Result.Counted)
			x.resets = max(x.resets, float64(r.Result.Resets))
			x.faults = max(x.faults, float64(r.Result.Lost+r.Result.Doubled))
			if at := base[b.baseOf(c, name)][r.Round]; at > 0 {
				x.ratios, added = append(x.ratios, f/at), append(added, f-at)
			}
		}
		x.runs, x.figure, x.ratio, x.rate, x.client = len(figures), median(figures), median(x.ratios), median(rates), median(clients)
		x.p50, x.p99, x.added, x.reach = median(p50), median(p99), median(added), median(reaches)
		if len(figures) > 0 && x.figure > 0 {
			x.spread = (slices.Max(figures) - slices.Min(figures)) / x.figure
		}
		rows = append(rows, x)
	}
	slices.SortFunc(rows, func(a, b row) int {
		if (a.runs == 0) != (b.runs == 0) {
			return cmp.Compare(b.runs, a.runs)
		}
		return cmp.Compare(a.figure, b.figure)
	})
	return rows
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}

func writeTable(out *strings.Builder, c cell, rows []row) {
	fmt.Fprintf(out, "## %s\n\n`make bench SCENARIO=%s`\n\n![%s](%s.svg)\n", c.title, c.name, c.name, c.name)
	if c.closed() {
		fmt.Fprintf(out, "![throughput](%s-rate.svg)\n", c.name)
	}
	if c.timed() {
		fmt.Fprintf(out, "![latency](%s-distribution.svg)\n", c.name)
	}
	out.WriteString("\n")
	fmt.Fprintf(out, "| server | %s | ratio | spread | messages a second | client us | p50 us | p99 us |\n|---|---|---|---|---|---|---|---|\n", c.figure.label())
	for _, r := range rows {
		if r.runs == 0 {
			fmt.Fprintf(out, "| %s | void: %s | | | | | | |\n", r.server, r.voids[0])
			continue
		}
		fmt.Fprintf(out, "| %s | %s | %.2f | %.0f %% | %s | %.2f | %s | %s |\n", r.server, amount(r.figure), r.ratio, r.spread*100,
			amount(r.rate), r.client, amount(r.p50), amount(r.p99))
	}
	for _, r := range rows {
		if r.runs > 0 && len(r.voids) > 0 {
			fmt.Fprintf(out, "\n%s: %d of its runs are void (%s).\n", r.server, len(r.voids), r.voids[0])
		}
	}
	out.WriteString("\n")
}

// amount writes a figure with two decimals below 100, and none above.
func amount(f float64) string {
	switch {
	case f == 0:
		return ""
	case f < 100:
		return fmt.Sprintf("%.2f", f)
	default:
		return fmt.Sprintf("%.0f", f)
	}
}

// histograms are a server's latencies over all rounds.
func (b *bench) histograms(c cell, server string) (list []load.Result) {
	for _, r := range b.records {
		if r.Scenario == c.name && r.Server == server && r.Result.Histogram != "" {
			list = append(list, r.Result)
		}
	}
	return list
}
