//go:build linux

package main

import (
	"fmt"
	"image/color"
	"math"

	"github.com/HdrHistogram/hdrhistogram-go"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// bar is a server's figure.
type bar struct {
	server string
	figure float64
}

// bars are the figures of the servers that have one.
func bars(rows []row, figure func(row) float64) (list []bar) {
	for _, r := range rows {
		if r.runs > 0 {
			list = append(list, bar{r.server, figure(r)})
		}
	}
	return list
}

// plotBars draws a figure for every server.
func plotBars(title, label string, list []bar, path string) error {
	if len(list) == 0 {
		return nil
	}
	p := plot.New()
	p.Title.Text, p.Y.Label.Text, p.Y.Min = title, label, 0
	var names []string
	for i, b := range list {
		chart, err := plotter.NewBarChart(plotter.Values{b.figure}, vg.Points(28))
		if err != nil {
			return err
		}
		chart.XMin = float64(i)
		chart.LineStyle.Width = 0
		switch b.server {
		case "parley":
			chart.Color = color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff}
		case "floor", "floor-ring":
			chart.Color = color.RGBA{R: 0x88, G: 0x88, B: 0x88, A: 0xff}
		default:
			chart.Color = color.RGBA{R: 0xdd, G: 0xb0, B: 0x70, A: 0xff}
		}
		p.Add(chart)
		names = append(names, fmt.Sprintf("%s\n%s", b.server, amount(b.figure)))
	}
	p.NominalX(names...)
	return p.Save(vg.Length(len(names)+2)*vg.Inch*0.8, 3.5*vg.Inch, path)
}

// plotLatency draws each server's latency by quantile.
func (b *bench) plotLatency(c cell, path string) error {
	p := plot.New()
	p.Title.Text = c.title
	p.X.Label.Text = "nines: 1 is 90 %, 3 is 99.9 % of the messages"
	p.Y.Label.Text = "latency from the planned time, us"
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	var lines []any
	for _, name := range b.servers {
		sum := hdrhistogram.New(1, 60_000_000, 3)
		for _, r := range b.histograms(c, name) {
			if h, err := hdrhistogram.Decode([]byte(r.Histogram)); err == nil {
				sum.Merge(h)
			}
		}
		if sum.TotalCount() == 0 {
			continue
		}
		var points plotter.XYs
		for nines := 0.1; nines <= 4; nines += 0.05 {
			quantile := 100 * (1 - math.Pow(10, -nines))
			points = append(points, plotter.XY{X: nines, Y: float64(max(1, sum.ValueAtQuantile(quantile)))})
		}
		lines = append(lines, name, points)
	}
	if len(lines) == 0 {
		return nil
	}
	if err := plotutil.AddLines(p, lines...); err != nil {
		return err
	}
	p.Legend.Top, p.Legend.Left = true, true
	return p.Save(7*vg.Inch, 4*vg.Inch, path)
}
