// Package show prints what the HTTP API and the admin listener tell, for a person: tables, times, sizes.
//
// What it refuses to do: to know what a row means. Start reading at List.
package show

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// Column is a title, and the text of a row under it.
type Column[T any] struct {
	title string
	text  func(row *T, now time.Time) string
}

// As makes a column. now is the time at which the row came.
func As[T any](title string, text func(row *T, now time.Time) string) Column[T] {
	return Column[T]{title, text}
}

// List writes a table, or a line of JSON for each row. Each page is written when it is there: columns are as wide as the page
// needs.
func List[T any](to io.Writer, asJSON bool, pages iter.Seq2[[]json.RawMessage, error], columns []Column[T]) error {
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	begun := asJSON
	for rows, err := range pages {
		if err != nil {
			return err
		}
		now := time.Now()
		if !begun {
			begun = true
			writeRow(w, columns, func(c *Column[T]) string { return c.title })
		}
		for _, raw := range rows {
			if asJSON {
				if err := JSON(to, raw); err != nil {
					return err
				}
				continue
			}
			var row T
			if err := json.Unmarshal(raw, &row); err != nil {
				return fmt.Errorf("read a row: %w", err)
			}
			writeRow(w, columns, func(c *Column[T]) string { return c.text(&row, now) })
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func writeRow[T any](w io.Writer, columns []Column[T], text func(*Column[T]) string) {
	for i := range columns {
		if i > 0 {
			io.WriteString(w, "\t")
		}
		io.WriteString(w, text(&columns[i]))
	}
	io.WriteString(w, "\n")
}

// One writes one thing: a line for each column, or JSON.
func One[T any](to io.Writer, asJSON bool, raw []byte, columns []Column[T]) error {
	if asJSON {
		return JSON(to, raw)
	}
	var row T
	if err := json.Unmarshal(raw, &row); err != nil {
		return fmt.Errorf("read an answer: %w", err)
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, c := range columns {
		fmt.Fprintf(w, "%s\t%s\n", c.title, c.text(&row, time.Now()))
	}
	return w.Flush()
}

// JSON writes JSON on one line.
func JSON(to io.Writer, raw []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, raw); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err := line.WriteTo(to)
	return err
}

// Printable is text without what is no letter, mark, number, punctuation, symbol or space of ASCII.
func Printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, text)
}

// Name is a name in a table: quoted if it is not plain, a dash if there is none.
func Name(text string) string {
	switch {
	case text == "":
		return "-"
	case text == "-" || strings.TrimSpace(text) != text || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) || r == '"' }):
		return strconv.Quote(text)
	}
	return text
}

// Names are names with commas between them, in their order.
func Names(list []string) string {
	quoted := slices.Clone(list)
	for i, one := range list {
		quoted[i] = Name(one)
	}
	return OrDash(len(list), strings.Join(quoted, ", "))
}

// Count is a number of the API, a dash if the API does not tell it.
func Count(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}

// Ago is how long a time of the API is over.
func Ago(text string, now time.Time) string {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return "-"
	}
	d := max(now.Sub(at), 0)
	if d < 1000*time.Second {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return Span(d)
}

// Size is a number of bytes in a unit in which it has at most three digits.
func Size(bytes int64) string {
	if bytes == 0 {
		return "0"
	}
	n := float64(bytes)
	for _, unit := range []string{"B", "KB", "MB", "GB"} {
		if n < 999.5 {
			return fmt.Sprintf("%.0f %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.0f TB", n)
}

// Things is a number of things: "1 connection", "2 connections".
func Things(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}

// OrDash is text, or a dash if n is 0 or text is empty.
func OrDash(n int, text string) string {
	if n == 0 || text == "" {
		return "-"
	}
	return text
}

// Span is a duration in its two largest units.
func Span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d >= 24*time.Hour:
		return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}
