package docs

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

// The dialogue of README.md's first minute is what the server says: each field that the page shows has its value.
func TestReadmeDialogue(t *testing.T) {
	srv, err := engine.New(engine.Config{Host: "127.0.0.1", Port: -1, Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(); err != nil {
		t.Fatal(err)
	}
	defer srv.Shutdown(t.Context())
	conn, _, _, err := ws.Dial(t.Context(), "ws://"+srv.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	lines := regexp.MustCompile(`(?m)^(->|<-) (\{.*\})$`).FindAllStringSubmatch(files(t, "README.md")["README.md"], -1)
	for _, line := range lines {
		if line[1] == "->" {
			if err := wsutil.WriteClientText(conn, []byte(line[2])); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var want, got map[string]any
		if err := json.Unmarshal([]byte(line[2]), &want); err != nil {
			t.Fatal(line[2], err)
		}
		for got["type"] != want["type"] {
			text, _, err := wsutil.ReadServerData(conn)
			if err != nil {
				t.Fatal(line[2], err)
			}
			got = nil
			if err := json.Unmarshal(text, &got); err != nil || got["type"] == "error" {
				t.Fatalf("%s: %s, %v", line[2], text, err)
			}
		}
		for field, value := range want {
			if got[field] != value {
				t.Errorf("%s: the server says %v", line[2], got)
			}
		}
	}
	if len(lines) != 4 {
		t.Errorf("%d lines of 4 found: the search is wrong", len(lines))
	}
}

var (
	goTestLine = regexp.MustCompile(`\bgo test [^#|)\n]*\./[\w/.]+`)
	benchWord  = regexp.MustCompile(`\b(SCENARIO|PEERS)=([\w,-]+)`)
	quoted     = regexp.MustCompile(`"([a-z][\w-]*)"`)
)

// checkCommands looks at the tests that the commands in a page's blocks select, and at the names of scenarios and peers.
func checkCommands(w *tree, page string, bench map[string]bool) (n int, wrong []string) {
	for _, block := range anyBlock.FindAllStringSubmatch(page, -1) {
		for _, command := range goTestLine.FindAllString(strings.ReplaceAll(block[2], "\\\n", " "), -1) {
			n++
			if strings.Contains(block[2], "cd bench && "+command) {
				command = strings.Replace(command, " ./", " ./bench/", 1)
			}
			if fault := w.checkCommand(command); fault != "" {
				wrong = append(wrong, command+": "+fault)
			}
		}
	}
	for _, m := range benchWord.FindAllStringSubmatch(page, -1) {
		for name := range strings.SplitSeq(m[2], ",") {
			n++
			known := bench[name]
			for have := range bench { // a scenario is chosen by a part of its name, and some have a number behind
				known = known || m[1] == "SCENARIO" && (strings.Contains(have, name) || strings.HasSuffix(have, "-") && strings.HasPrefix(name, have))
			}
			if !known {
				wrong = append(wrong, m[1]+"="+name+": make bench has none of that name")
			}
		}
	}
	return n, wrong
}

// The tests, scenarios and peers that the commands of pages name exist.
func TestCommandsOfPages(t *testing.T) {
	w, bench := plant(t), map[string]bool{}
	for _, s := range sources(t) {
		if s.dir() == "bench" && !s.test() {
			for _, m := range quoted.FindAllStringSubmatch(s.text, -1) {
				bench[m[1]] = true
			}
		}
	}
	for _, planted := range []string{"```sh\ngo test -run TestOfNothing ./docs\n```", "```sh\ngo test ./nothing\n```", "`make bench SCENARIO=nosuch`", "`make bench PEERS=nosuch`"} {
		if _, wrong := checkCommands(w, planted, bench); len(wrong) != 1 {
			t.Errorf("%q: the planted fault goes unnoticed: the rule does not run", planted)
		}
	}
	all, sum := pages(t), 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		n, wrong := checkCommands(w, all[name], bench)
		sum += n
		for _, fault := range wrong {
			t.Errorf("%s: %s", name, fault)
		}
	}
	if sum < 50 {
		t.Errorf("only %d commands found: the search is wrong", sum)
	}
}
