package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/parleyd/parley/engine/api"
)

// In one terminal a server, in another the commands: they find it and its key by themselves. Names may have spaces, quotes and any
// letters; what a terminal would take for a command is quoted.
func TestCommands(t *testing.T) {
	secret := secretFile(t)
	r, b, _ := serveAPI(t, "1", "--auth", "optional", "--jwt-secret-file", secret)
	x := b.terminal()
	const room, user = `ein "Raum" für 2 – 你好`, "ann \u202e lee"
	x.says("created \"ein \\\"Raum\\\" für 2 – 你好\"\n", "rooms", "create", room, "--max-members", "3", "--metadata", `{"a": [1, "<"]}`)
	x.fails(exitRefused, "room_exists: ", "rooms", "create", room)
	token := makeToken(t, secret, "--user", user, "--join", "**", "--publish", "**")
	m := r.memberBy(withUser(token), room)
	other := r.memberBy(withUser(makeToken(t, secret, "--user", "bob", "--join", "**")), "lobby")
	x.says("", "publish", room, ` {"a": "<>"} `)
	x.says("queued for 1 connection\n", "publish", room, `2`, "--count")
	x.says("queued for 0 connections\n", "publish", "nowhere", "--count", "--", "-5")
	x.says("{\"recipients\":0}\n", "publish", "nowhere", "--json", `3`, "--count")
	x.says("queued for 1 connection\n", "publish", "--user", user, "--count", `{"type":"note"}`)
	x.says("queued for 2 connections\n", "publish", "--everybody", "--count", `{"type":"end",  "n":1}`)
	for _, want := range []string{`"data":{"a": "<>"},`, `"data":2,`, `{"type":"note"}`, `{"type":"end",  "n":1}`} {
		await(t, m, want)
	}
	await(t, other, `"end"`)

	x.shows(`^ROOM +MEMBERS  LIMIT  AGE\n(lobby .*\n)?"ein \\"Raum\\" für 2 – 你好" +1 +3 +\d+s\n`, "rooms", "--match", "*")
	x.shows(`(?m)^METADATA +\{"a": ?\[1, ?"<"\]\}$`, "rooms", "show", room)
	x.shows(`^\{"room":"lobby","members":1,.*\}\n$`, "rooms", "ls", "--json", "--match", "lobby")
	x.shows(`^\{"room":"lobby","members":1,.*\}\n$`, "rooms", "show", "--json", "lobby")
	x.shows(`(?m)^"ann \\u202e lee" +1$`, "users")
	x.says("USER  CONNECTIONS\nbob   1\nzoe   0\n", "users", "bob", "zoe")
	x.shows(`^CONNECTION +USER +ADDRESS +AGE +IDLE +ROOMS +BACKLOG +IN +OUT +WORKER\n[0-9a-f]{24}  "ann \\u202e lee"  127\.0\.0\.1  \d+s +\d+s +1 +0 +[1-9]\d* +[1-9]\d* +[0-2]\n`, "conns", "--room", room)
	x.shows(`^CONNECTION .*\n.*  bob  .*\n$`, "conns", "ls", "--user", "bob", "--address", "127.0.0.1")
	x.shows(`^CONNECTION .*\n.*\n$`, "conns", "ls", "--sort", "age", "--limit", "1")

	code, out, stderr := x.run("", "conns", "--user", "bob", "--json")
	var bob struct{ ID, User string }
	if err := json.Unmarshal([]byte(out), &bob); code != exitOK || err != nil || bob.User != "bob" {
		t.Fatal(code, out, stderr, err)
	}
	x.shows(`(?m)^IN ROOMS +lobby$`, "conns", "show", bob.ID)
	x.says("closed 1 connection\n", "conns", "kick", bob.ID, "--code", "4100", "--reason", "come back")
	x.says("closed 0 connections\n", "conns", "kick", bob.ID)
	x.says("{\"closed\":1}\n", "disconnect", "--user", user, "--end-sessions", "--json")
	x.says("deleted \"ein \\\"Raum\\\" für 2 – 你好\": 0 members left\n", "rooms", "delete", room)
	r.memberBy(withUser(token), "lobby")
	x.says("closed 0 connections\n", "revoke", "--jti", "none")
	x.says("closed 1 connection\n", "revoke", "--user", user)
	x.says("the revocation is taken back\n", "revoke", "--user", user, "--undo")
	x.says("{}\n", "revoke", "--jti", "none", "--undo", "--json")
	x.fails(exitUsage, "say which tokens", "revoke")
	x.says(string(api.Description()), "openapi", "--url", b.url)
	x.says(string(api.Description()), "openapi")
	r.stops()
}

// A list has all pages, or the first rows.
func TestListsOfPages(t *testing.T) {
	const n = 2000
	_, b, _ := serveAPI(t, "1")
	x := b.terminal()
	for i := range n / 1000 {
		var ops []string
		for k := range 1000 {
			ops = append(ops, fmt.Sprintf(`{"do":"rooms/create","room":"r%04d"}`, i*1000+k))
		}
		b.must("/v1/batch", `{"operations":[%s]}`, strings.Join(ops, ","))
	}
	for limit, want := range map[string]int{"0": n, "1": 1, "1000": 1000, "1001": 1000 + 1, "5000": n} {
		code, out, stderr := x.run("", "rooms", "ls", "--json", "--limit", limit)
		seen := map[string]bool{}
		for line := range strings.Lines(out) {
			seen[line] = true
		}
		if code != exitOK || strings.Count(out, "\n") != want || len(seen) != want {
			t.Errorf("--limit %s: %d, %d lines, %d rooms, %s", limit, code, strings.Count(out, "\n"), len(seen), stderr)
		}
	}
	names := make([]string, 450)
	for i := range names {
		names[i] = fmt.Sprint("u", i)
	}
	if code, out, stderr := x.run("", append([]string{"users"}, names...)...); code != exitOK || strings.Count(out, "\n") != len(names)+1 || strings.Count(out, "USER") != 1 {
		t.Error(code, out, stderr)
	}
}

// With three workers lists and actions are those of all. If a worker does not answer, the command says so and ends with 1.
func TestCommandsOverWorkers(t *testing.T) {
	r, b, _ := serveAPI(t, "3")
	x := b.terminal()
	var members []*bufio.Reader
	for range 9 {
		members = append(members, r.member("a"))
	}
	x.shows(`^CONNECTION.*\n(.+ [012]\n){9}$`, "conns")
	x.shows(`^ROOM.*\na +9 .*\n$`, "rooms")
	x.says("queued for 9 connections\n", "publish", "a", "1", "--count")
	var input strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&input, "{\"n\":%d}\r\n\n", i)
	}
	if code, out, stderr := x.run(input.String()+`{"n":"last"}`, "publish", "a", "-"); code != exitOK || out+stderr != "" {
		t.Error(code, out, stderr)
	}
	if code, out, stderr := x.run("1\n2\n", "publish", "a", "-", "--count"); code != exitOK || out != "published 2 lines, queued 18 times\n" {
		t.Error(code, out, stderr)
	}
	for k, m := range members {
		for i := range 5000 {
			if got := await(t, m, `"data":{"n":`); !strings.Contains(got, fmt.Sprintf(`{"n":%d}`, i)) {
				t.Fatalf("member %d: message %d is %s", k, i, got)
			}
		}
		await(t, m, `"last"`)
	}
	r.signalRole("worker", syscall.SIGSTOP)
	code, out, stderr := x.run("", "conns")
	counted, _, says := x.run("", "publish", "a", "1", "--count")
	r.signalRole("worker", syscall.SIGCONT)
	if rows := strings.Count(out, "\n") - 1; code != exitFailed || rows < 0 || rows >= 9 || !strings.Contains(stderr, "the answer is not complete, because workers did not answer in time (instance ") {
		t.Error(code, out, stderr)
	}
	if counted != exitFailed || !strings.Contains(says, "the answer is not complete") {
		t.Error(counted, says)
	}
	x.says("deleted a: 9 members left\n", "rooms", "delete", "a")
	r.stops()
}

// A drain is followed until the worker has ended, and it says how many clients are left.
func TestDrainCommand(t *testing.T) {
	r, b, _ := serveAPI(t, "3")
	x := b.terminal()
	for range 12 {
		go io.Copy(io.Discard, r.member("a"))
	}
	was := b.processes().Workers[1]
	x.shows(`^(worker 1: draining, \d+ connections?\n)+worker 1: drained, 0 connections\n$`, "drain", "1", "--within", "2s")
	if is := b.processes().Workers[1]; is.Instance == was.Instance && is.State != "backoff" {
		t.Errorf("%+v", is)
	}
	x.fails(exitRefused, "not_found: worker: ", "drain", "3")
	x.fails(exitRefused, "invalid_request: /within: ", "drain", "0", "--within", "2h")
	x.fails(exitUsage, "is not the index of a worker", "drain", "all")
	r.stops()
}

// The first line that fails ends the command with its number. What was under way with it is told.
func TestLinesThatFail(t *testing.T) {
	_, b, _ := serveAPI(t, "1", "--message-bytes-max", "2000")
	x := b.terminal()
	long := `"` + strings.Repeat("x", 80_000) + `"`
	for _, row := range []struct {
		input, want string
		code        int
		args        []string
	}{
		{"1\n\nhello\n3\n", `line 3: "hello" is no JSON`, exitUsage, nil},
		{"1\n\"a\xff\"\n", "line 2: ", exitUsage, nil},
		{"1\n2\n" + long + "\n4\n", "line 3: too_large: ", exitRefused, nil},
		{"{\"type\":\"a\"}\n{}\n", "line 2: invalid_request: /message: ", exitRefused, []string{"--message"}},
		{"1\n" + strings.Repeat("x", 8<<20+1), "line 2: it has more than 8388608 bytes; 1 line published", exitUsage, nil},
		{"", "", exitOK, nil},
	} {
		code, out, stderr := x.run(row.input, append([]string{"publish", "a", "-"}, row.args...)...)
		if code != row.code || out != "" || !strings.Contains(stderr, row.want) || row.want == "" && stderr != "" {
			t.Errorf("%.20q: %d %q %q, want %s", row.input, code, out, stderr, row.want)
		}
	}
	if code, out, _ := x.run("1\nx\n", "publish", "a", "-", "--json"); code != exitUsage || out != "{\"published\":1}\n" {
		t.Error(code, out)
	}
}

// If the server ends while lines are published, the command says which line has no answer, or that it has ended.
func TestLinesWithoutServer(t *testing.T) {
	r, b, _ := serveAPI(t, "1")
	x := b.terminal()
	m := r.member("a")
	var wrong bytes.Buffer
	root := newRoot()
	root.SetArgs([]string{"publish", "a", "-"})
	root.SetIn(endless{})
	root.SetErr(&wrong)
	ended := make(chan int)
	go func() { ended <- execute(t.Context(), root) }()
	await(t, m, `"data":1`)
	r.signal(syscall.SIGKILL)
	if code := <-ended; code != exitUnreachable || !strings.Contains(wrong.String(), "published") {
		t.Error(code, wrong.String())
	}
	r.code()
	x.fails(exitUnreachable, "no server answers", "users")
}

// A line is sent when it is there, although the input goes on. An interrupted command says how many lines are published.
func TestLinesInterrupted(t *testing.T) {
	r, b, _ := serveAPI(t, "1")
	b.terminal()
	m := r.member("a")
	in, typed := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	var wrong bytes.Buffer
	root := newRoot()
	root.SetArgs([]string{"publish", "a", "-"})
	root.SetIn(in)
	root.SetErr(&wrong)
	ended := make(chan int)
	go func() { ended <- execute(ctx, root) }()
	fmt.Fprintln(typed, "1")
	await(t, m, `"data":1`)
	interrupt()
	if code := <-ended; code != exitFailed || !strings.Contains(wrong.String(), "interrupted; 1 line published") {
		t.Error(code, wrong.String())
	}
	typed.Close()
}

// endless is an input that never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, "1\n"), nil }
