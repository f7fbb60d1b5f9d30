package main

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// What was published to a room with history is shown, page by page; a key publishes once, and what is missing is told.
func TestHistoryCommands(t *testing.T) {
	r, b, _ := serveAPI(t, "1", "--history", "chat:**=messages:250")
	x := b.terminal()
	var lines strings.Builder
	for n := 1; n <= 260; n++ {
		fmt.Fprintf(&lines, "{\"n\":%d}\n", n)
	}
	if code, _, stderr := x.run(lines.String(), "publish", "chat:1", "-"); code != exitOK {
		t.Fatal(code, stderr)
	}
	shown := func(args ...string) string {
		t.Helper()
		code, out, stderr := x.run("", append([]string{"history", "chat:1", "--json"}, args...)...)
		var numbers []string
		for _, line := range strings.Split(strings.TrimSuffix(out, "\n"), "\n") {
			var m struct {
				Seq     int
				Message struct {
					Seq  int
					Data struct{ N int }
				}
			}
			if err := json.Unmarshal([]byte(line), &m); line != "" && (err != nil || m.Message.Seq != m.Seq || m.Message.Data.N != m.Seq) {
				t.Errorf("%s: %v", line, err)
			}
			numbers = append(numbers, fmt.Sprint(m.Seq))
		}
		return fmt.Sprintf("%d: %s to %s, %d lines %s", code, numbers[0], numbers[len(numbers)-1], len(numbers), strings.TrimPrefix(stderr, "parley: "))
	}
	_, out, _ := x.run("", "rooms", "show", "chat:1")
	found := regexp.MustCompile(`(?m)^HISTORY +250 messages kept, up to the number 260 of the epoch (\S+)$`).FindStringSubmatch(out)
	if found == nil {
		t.Fatal(out)
	}
	for args, want := range map[string]string{
		"": "0: 241 to 260, 20 lines ", "--limit 0": "0: 11 to 260, 250 lines ", "--limit 3": "0: 258 to 260, 3 lines ", "--limit 230": "0: 31 to 260, 230 lines ",
		"--since 10 --epoch E": "0: 11 to 260, 250 lines ", "--since 258 --epoch E": "0: 259 to 260, 2 lines ", "--since 100 --epoch E --limit 120": "0: 101 to 220, 120 lines ",
		"--since 260 --epoch E": "0: 0 to 0, 1 lines ",
		"--since 7 --epoch E":   "1: 11 to 260, 250 lines the list is not complete: the room does not keep the messages 8 to 10 any more\n",
		"--since 7 --epoch e":   "1: 0 to 0, 1 lines the numbers of the room began anew in the epoch " + found[1] + ", or it has none above 7 yet: it is not known what is missing\n",
	} {
		if got := shown(strings.Fields(strings.ReplaceAll(args, "E", found[1]))...); got != want {
			t.Errorf("%s: %s, want %s", args, got, want)
		}
	}
	x.shows(`^SEQ  MESSAGE\n260  \{"type":"broadcast","room":"chat:1","data":\{"n":260\},.*\}\n$`, "history", "chat:1", "--limit", "1")
	x.says("", "publish", "chat:1", "1", "--idempotency-key", "k", "--key", "a")
	x.says("published before: the message has the number 261\n", "publish", "chat:1", "2", "--idempotency-key", "k")
	x.shows(`^\{"seq":261,"epoch":"\S+","duplicate":true\}\n$`, "publish", "chat:1", "2", "--idempotency-key", "k", "--json")
	x.says("{}\n", "publish", "chat:1", "2", "--no-history", "--json")
	x.fails(exitRefused, `no_history: "lobby" keeps no history`, "publish", "lobby", "1", "--idempotency-key", "k")
	x.fails(exitRefused, "no_history: ", "history", "lobby")
	x.fails(exitRefused, "invalid_request: /key", "publish", "chat:1", "1", "--key", strings.Repeat("k", 65))
	for text, args := range map[string][]string{
		"takes one room":         {"history"},
		"or neither":             {"history", "chat:1", "--since", "1"},
		"is negative":            {"history", "chat:1", "--limit", "-1"},
		"belongs to one message": {"publish", "chat:1", "-", "--idempotency-key", "k"},
		"invalid argument":       {"history", "chat:1", "--since", "-1", "--epoch", "e"},
	} {
		x.fails(exitUsage, text, args...)
	}
	r.stops()
}
