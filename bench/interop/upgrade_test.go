package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	gorilla "github.com/gorilla/websocket"
)

// place copies the program to a path as install does: a new file takes the name, and a running server keeps the old file.
func place(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(binary)
	if err == nil {
		err = os.WriteFile(path+".new", text, 0o700)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// programs are the files that the workers of a server run.
func (l *launched) programs() (list []string) {
	for _, pid := range l.workers("worker") {
		if name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err == nil {
			list = append(list, name)
		}
	}
	return list
}

// The section "Upgrading" of docs/operating.md: workers that start later run the program of their supervisor; a restart with data_dir
// keeps sessions and created rooms, and tells clients of rooms with history that messages are missing.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{1, 2} {
		for _, kept := range []bool{true, false} {
			t.Run(fmt.Sprint(processes, " processes, data_dir ", kept), func(t *testing.T) { upgradeOne(t, processes, kept) })
		}
	}
}

func upgradeOne(t *testing.T, processes int, kept bool) {
	dir, api := t.TempDir(), freePort(t)
	program := filepath.Join(dir, "parley")
	place(t, program)
	args := []string{"--processes", fmt.Sprint(processes), "--api-port", fmt.Sprint(api), "--history", "h=messages:10"}
	if kept {
		args = append(args, "--data-dir", filepath.Join(dir, "data"))
	}
	command := func(words ...string) (string, error) {
		cmd := exec.Command(program, words...)
		cmd.Env = append(os.Environ(), fmt.Sprint("PARLEY_API_PORT=", api))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	old := launch(t, program, "", args...).ready()
	place(t, program)
	if processes > 1 {
		drainOne(t, old, command)
	}
	p := greet(t, "gorilla", old.ws())
	for _, room := range []string{"plain", "h"} {
		p.say(`{"type":"join","room":%q}`, room)
		p.until("joined")
	}
	p.say(`{"type":"broadcast","room":"h","data":1}`)
	p.until("broadcast_sent")
	if out, err := command("rooms", "create", "made"); err != nil {
		t.Fatal(out, err)
	}
	old.signal(syscall.SIGTERM)
	if m := p.until("goodbye"); m["retry_after"] == nil {
		t.Errorf("the client is told %v", m)
	}
	if _, err := p.c.read(); !gorilla.IsCloseError(err, gorilla.CloseGoingAway) {
		t.Errorf("the connection ends with %v", err)
	}
	if code := old.exit(); code != 0 {
		t.Errorf("the old server ends with %d", code)
	}
	next := launch(t, program, "", args...).ready()
	heir := greet(t, "gorilla", next.ws())
	heir.say(`{"type":"reconnect","token":%q}`, p.token)
	if kept {
		if m := heir.until("reconnected"); fmt.Sprint(m["rooms"]) != "[plain h]" && fmt.Sprint(m["rooms"]) != "[h plain]" || fmt.Sprint(m["gaps"]) != "[h]" {
			t.Errorf("the session comes back as %v", m)
		}
	} else if m := heir.until("error"); m["code"] != "invalid_token" {
		t.Errorf("the resume is answered %v", m)
	}
	out, err := command("rooms")
	if made := strings.Contains(out, "made"); err != nil || made != (kept && processes > 1) {
		t.Errorf("the created room is there: %v (%v)\n%s", made, err, out)
	}
}

// drainOne drains a worker of a server whose program has been replaced, and wants its successor to run the old program.
func drainOne(t *testing.T, l *launched, command func(words ...string) (string, error)) {
	t.Helper()
	before := l.workers("worker")
	if out, err := command("drain", "0", "--within", "1s"); err != nil {
		t.Fatal(out, err)
	}
	eventually(t, "another worker has begun", func() bool {
		now := l.workers("worker")
		return len(now) == len(before) && slices.ContainsFunc(now, func(pid int) bool { return !slices.Contains(before, pid) }) && l.metric("parley_worker_up", "") >= 3
	})
	for _, name := range l.programs() {
		if !strings.HasSuffix(name, " (deleted)") {
			t.Errorf("a worker runs %s, the new program", name)
		}
	}
}
