package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"

	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/logs"
)

const formatJSON = "json"

func newLog(s *settings) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	level.UnmarshalText([]byte(s.LogLevel)) // load has checked that it is one of four words
	return logs.Queued(slog.New(logHandler(s, os.Stderr, level))), level
}

func logHandler(s *settings, to io.Writer, level slog.Leveler) slog.Handler {
	if s.LogFormat == formatJSON {
		return slog.NewJSONHandler(to, &slog.HandlerOptions{Level: level, ReplaceAttr: withUnits})
	}
	return slog.NewTextHandler(to, &slog.HandlerOptions{Level: level})
}

// withUnits writes durations with their units: slog's JSON has them as a plain number of nanoseconds.
func withUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// announce logs the start: version, process, and the settings that are not the defaults, without secrets.
func (s *settings) announce(log *slog.Logger) {
	usual := defaultSettings()
	usual.Processes = s.Processes
	usual.settle()
	usual.Processes = defaultSettings().Processes
	var changed []any
	for _, x := range table {
		text := x.text(s)
		if text == x.text(&usual) {
			continue
		}
		if x.key == "bus_url" {
			text = bus.RedactURL(text)
		}
		changed = append(changed, slog.String(x.key, text))
	}
	log.Info("starting", "version", version+commit(), "go", runtime.Version(), "pid", os.Getpid(), slog.Group("settings", changed...))
}

// places are the addresses of a server; page and api are nil where it has none.
type places struct{ server, page, api net.Addr }

// sayReady prints the server's addresses to its standard output: a line of text, or an object if the log is JSON.
func (s *settings) sayReady(to io.Writer, at places) {
	ws, page, api := "ws://"+at.server.String(), "", ""
	if at.page != nil {
		page = "http://" + at.page.String() + "/"
	}
	if at.api != nil {
		api = "http://" + at.api.String() + "/"
	}
	if s.LogFormat == formatJSON {
		slog.New(logHandler(s, to, slog.LevelInfo)).Info("ready", "url", ws, "admin_url", page, "api_url", api, "auth", s.Auth)
		return
	}
	line := "parley: ready on " + ws
	if page != "" {
		line += "; chat page, health, stats and metrics on " + page
	}
	if s.Auth == "off" {
		line += "; auth is off: every client may connect and join"
	}
	if api != "" {
		line += "; HTTP API on " + api
	}
	if api != "" && s.runKey != nil {
		line += " with the key in " + s.runKey.path
	}
	fmt.Fprintln(to, line)
}

// logged logs the error that ends serve, if the log is JSON; run prints it otherwise.
func (s *settings) logged(err error) error {
	if s.LogFormat != formatJSON {
		return err
	}
	log, _ := newLog(s)
	log.Error("the server has ended", "err", err)
	flush(func(ctx context.Context) error { return logs.Flush(ctx, log) })
	return exitError{code: codeOf(err)}
}
