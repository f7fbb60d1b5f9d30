package engine

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

var placeholder = regexp.MustCompile(`(ID|TOKEN)\((\w+)\)|TIME|TEXT`)

// stage plays one transcript.
type stage struct {
	t      *testing.T
	s      *Server
	actors map[string]*client
	values map[string]string // what placeholders stood for
}

// Every transcript in the wire protocol's document happens as written.
func TestTranscripts(t *testing.T) {
	text, err := os.ReadFile("../docs/wire.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```transcript\n")[1:]
	if len(blocks) < 5 {
		t.Fatalf("%d transcripts found", len(blocks))
	}
	for _, block := range blocks {
		script, _, _ := strings.Cut(block, "```")
		t.Run("", func(t *testing.T) {
			st := &stage{t, startServer(t, nil, nil), map[string]*client{}, map[string]string{}}
			for line := range strings.Lines(script) {
				st.play(strings.TrimSpace(line))
			}
		})
	}
}

func (st *stage) play(line string) {
	st.t.Helper()
	who, rest, _ := strings.Cut(line, " ")
	c := st.actors[who]
	verb, argument, _ := strings.Cut(rest, " ")
	switch verb {
	case "connects":
		st.actors[who] = dialBare(st.t, st.s, ws.Dialer{})
	case "drops":
		c.conn.Close()
	case "closed":
		if code := c.expectClose(); argument != strconv.Itoa(int(code)) {
			st.t.Fatalf("%s: closed with %d", line, code)
		}
	case "->":
		c.send(placeholder.ReplaceAllStringFunc(argument, func(p string) string { return st.values[p] }))
	case "<-":
		c.conn.SetReadDeadline(time.Now().Add(patient))
		got, _, err := wsutil.ReadServerData(c.conn)
		if err != nil {
			st.t.Fatalf("%s: %v", line, err)
		}
		st.match(line, argument, string(got))
	default:
		st.t.Fatalf("%q is no line of a transcript", line)
	}
}

// match holds what came against what is written; a placeholder must stand for the same thing each time.
func (st *stage) match(line, want, got string) {
	st.t.Helper()
	var pattern strings.Builder
	var names []string
	last := 0
	for _, at := range placeholder.FindAllStringIndex(want, -1) {
		name := want[at[0]:at[1]]
		pattern.WriteString(regexp.QuoteMeta(want[last:at[0]]))
		names = append(names, name)
		switch {
		case strings.HasPrefix(name, "ID"):
			pattern.WriteString(`("[0-9a-f]{24}")`)
		case strings.HasPrefix(name, "TOKEN"):
			pattern.WriteString(`("[\w-]{22}")`)
		case name == "TIME":
			pattern.WriteString(`(\d{10})`)
		default:
			pattern.WriteString(`("[^"]+(?:\\"[^"]*)*")`)
		}
		last = at[1]
	}
	pattern.WriteString(regexp.QuoteMeta(want[last:]))
	found := regexp.MustCompile("^" + pattern.String() + "$").FindStringSubmatch(got)
	if found == nil {
		st.t.Fatalf("%s\n got %s", line, got)
	}
	for i, name := range names {
		if name == "TIME" || name == "TEXT" {
			continue
		}
		if old, known := st.values[name]; known && old != found[i+1] {
			st.t.Fatalf("%s\n got %s\n%s was %s", line, got, name, old)
		}
		st.values[name] = found[i+1]
	}
}
