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

// plotBars draws a scenario's figure for every server.
func plotBars(c cell, rows []row, path string) error {
	p := plot.New()
	p.Title.Text = c.title
	p.Y.Label.Text = c.figure.label()
	p.Y.Min = 0
	var names []string
	for _, r := range rows {
		if r.runs == 0 {
			continue
		}
		bar, err := plotter.NewBarChart(plotter.Values{r.figure}, vg.Points(28))
		if err != nil {
			return err
		}
		bar.XMin = float64(len(names))
		bar.LineStyle.Width = 0
		switch r.server {
		case "parley":
			bar.Color = color.RGBA{R: 0x1f, G: 0x77, B: 0xb4, A: 0xff}
		case "floor":
			bar.Color = color.RGBA{R: 0x88, G: 0x88, B: 0x88, A: 0xff}
		default:
			bar.Color = color.RGBA{R: 0xdd, G: 0xb0, B: 0x70, A: 0xff}
		}
		p.Add(bar)
		names = append(names, fmt.Sprintf("%s\n%s", r.server, amount(r.figure)))
	}
	if len(names) == 0 {
		return nil
	}
	p.NominalX(names...)
	return p.Save(vg.Length(len(names)+2)*vg.Inch*0.8, 3.5*vg.Inch, path)
}

// plotLatency draws what share of the messages took longer than how long.
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
