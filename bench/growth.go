//go:build linux

package main

import (
	"fmt"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// groups gathers the cells of each curve. A single cell is no curve.
func groups(list []cell) (found [][]cell) {
	at := map[string]int{}
	for _, c := range list {
		if c.group == "" {
			continue
		}
		i, ok := at[c.group]
		if !ok {
			i = len(found)
			at[c.group], found = i, append(found, nil)
		}
		found[i] = append(found[i], c)
	}
	for i := 0; i < len(found); {
		if len(found[i]) < 2 {
			found = append(found[:i], found[i+1:]...)
			continue
		}
		i++
	}
	return found
}

// curve is a server's figures over a group, 0 for a cell without one.
func (b *bench) curve(group []cell, server string) (figures []float64) {
	for _, c := range group {
		figure := 0.0
		for _, r := range b.rows(c) {
			if r.server == server {
				figure = r.figure
			}
		}
		figures = append(figures, figure)
	}
	return figures
}

// writeGrowth writes a table of the cost at the last place over that at the first, and its ratio to the floor's.
func (b *bench) writeGrowth(out *strings.Builder, group []cell) {
	last := len(group) - 1
	fmt.Fprintf(out, "## Growth by %s\n\n`make bench SCENARIO=%s`\n\n![growth](%s.svg)\n\n| server |", group[0].group, group[0].group, group[0].group)
	for _, c := range group {
		fmt.Fprintf(out, " %.0f |", c.x)
	}
	fmt.Fprintf(out, " growth | beside the floor's |\n|---|%s---|---|\n", strings.Repeat("---|", len(group)))
	floor := b.curve(group, "floor")
	for _, server := range b.servers {
		figures := b.curve(group, server)
		if figures[0] == 0 || figures[last] == 0 {
			continue
		}
		fmt.Fprintf(out, "| %s |", server)
		for _, f := range figures {
			fmt.Fprintf(out, " %s |", amount(f))
		}
		growth, beside := figures[last]/figures[0], ""
		if floor[0] > 0 && floor[last] > 0 {
			beside = fmt.Sprintf("%.2f", growth/(floor[last]/floor[0]))
		}
		fmt.Fprintf(out, " %.2f | %s |\n", growth, beside)
	}
	out.WriteString("\n")
}

// plotGrowth draws a line for each server.
func (b *bench) plotGrowth(group []cell, path string) error {
	p := plot.New()
	p.Title.Text = "Growth by " + group[0].group
	p.X.Label.Text, p.Y.Label.Text = group[0].group, group[0].figure.label()
	p.X.Scale, p.X.Tick.Marker, p.Y.Min = plot.LogScale{}, plot.LogTicks{Prec: -1}, 0
	var lines []any
	for _, server := range b.servers {
		var points plotter.XYs
		for i, f := range b.curve(group, server) {
			if f > 0 {
				points = append(points, plotter.XY{X: group[i].x, Y: f})
			}
		}
		if len(points) > 1 {
			lines = append(lines, server, points)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	if err := plotutil.AddLinePoints(p, lines...); err != nil {
		return err
	}
	return p.Save(7*vg.Inch, 4*vg.Inch, path)
}
