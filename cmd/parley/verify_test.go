package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/parleyd/parley/cmd/parley/verify"
	"github.com/parleyd/parley/engine"
)

// The verb ends with the code that its help names, and prints the reason.
func TestVerifyExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{nil, exitUsage, "one server"},
		{[]string{"127.0.0.1:9090"}, exitUsage, "ws://127.0.0.1:9090"},
		{[]string{"wss://localhost:1"}, exitUsage, "TLS"},
		{[]string{"ws://127.0.0.1:1", "--clients", "1"}, exitUsage, "at least 2"},
		{[]string{"ws://127.0.0.1:1", "--kill"}, exitUsage, "--spawn"},
		{[]string{"ws://127.0.0.1:1", "--api", "http://127.0.0.1:2"}, exitUsage, "api-key-file"},
		{[]string{"ws://127.0.0.1:1", "--api", "https://127.0.0.1:2", "--spawn", "true"}, exitUsage, "http://127.0.0.1:9092"},
		{[]string{"ws://127.0.0.1:1", "--kill-api", "--spawn", "true"}, exitUsage, "--api"},
		{[]string{"ws://127.0.0.1:1", "--dialect", "klingon"}, exitUsage, "plain"},
		{[]string{"ws://127.0.0.1:1", "--heartbeat-interval", "2s", "--heartbeat-timeout", "1s"}, exitUsage, "exceed"},
		{[]string{"ws://127.0.0.1:1", "--history-age", "1s"}, exitUsage, "give --history-messages"},
		{[]string{"ws://127.0.0.1:1", "--history-messages", "-1"}, exitUsage, "cannot be negative"},
		{[]string{"ws://127.0.0.1:1", "--history-messages", "5", "--dialect", "plain"}, exitUsage, "only the dialect parley"},
		{[]string{"ws://127.0.0.1:1"}, exitUnreachable, "connect"},
		{[]string{"ws://127.0.0.1:1", "--spawn", "echo no such server; false"}, exitUnreachable, "no such server"},
	} {
		var out, wrong strings.Builder
		code := run(t.Context(), append([]string{"verify"}, c.args...), &out, &wrong)
		if code != c.code || !strings.Contains(wrong.String(), c.says) {
			t.Errorf("verify %v: code %d, says %q; want %d and %q", c.args, code, wrong.String(), c.code, c.says)
		}
	}
}

// A run against a real server prints a report that a program can read, and names the command that repeats it.
func TestVerifyReports(t *testing.T) {
	s, err := engine.New(engine.Config{Port: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Shutdown(t.Context()) })
	var out, wrong strings.Builder
	url := fmt.Sprintf("ws://%s", s.Addr())
	code := run(t.Context(), []string{"verify", url, "--for", "500ms", "--clients", "20", "--rooms", "3", "--seed", "7", "--patience", "20s", "--json"}, &out, &wrong)
	if code != exitOK {
		t.Fatalf("code %d\n%s\n%s", code, out.String(), wrong.String())
	}
	var r verify.Report
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatal(err)
	}
	if r.Seed != 7 || !strings.Contains(r.Command, "--seed 7") || !strings.HasSuffix(r.Command, url) || r.Checked["answers"] == 0 {
		t.Errorf("the report says %s", out.String())
	}
}

// A run that is told of a history says at once that the server's rooms have none, and what to do. Against rooms with that history it
// ends well.
func TestVerifyHistory(t *testing.T) {
	for entry, want := range map[string]int{"other-**": exitUnreachable, "verify-**=messages:5": exitOK} {
		s, err := engine.New(engine.Config{Port: -1, History: []string{entry}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Shutdown(t.Context()) })
		var out, wrong strings.Builder
		code := run(t.Context(), []string{"verify", fmt.Sprintf("ws://%s", s.Addr()), "--for", "500ms", "--clients", "20", "--rooms", "3", "--exact-counts",
			"--patience", "20s", "--history-messages", "5"}, &out, &wrong)
		if code != want || want != exitOK && !strings.Contains(wrong.String(), "start the server with --history 'verify-**=messages:5'") {
			t.Errorf("history %s: code %d, want %d\n%s\n%s", entry, code, want, out.String(), wrong.String())
		}
	}
}
