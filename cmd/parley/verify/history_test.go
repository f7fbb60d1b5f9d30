package verify

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/history"
)

// Runs against the real server with rooms with history have no findings, whatever the history's bounds and policy are. With
// -short there are two.
func TestCleanHistories(t *testing.T) {
	t.Parallel()
	binary := buildServer(t, false)
	for i, with := range []serving{
		{history: "messages:20", backends: true},
		{history: "messages:20;age:1s;slow:conflate", roomy: true},
		{history: "messages:20", limited: true, beating: true},
		{history: "messages:20;slow:disconnect"},
		{history: "messages:20", roomy: true},
		{history: "messages:20", workers: 3, killed: true},
	} {
		if testing.Short() && i > 1 {
			continue
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			o := options(t, binary, "", with)
			o.Seed = uint64(200 + i)
			report := run(t, o)
			if !report.Clean() {
				t.Error(findings(report))
			}
			if report.Checked["numbers"] < 1000 || report.Checked["replayed"] == 0 {
				t.Errorf("the run did nothing: %v", report.Checked)
			}
		})
	}
}

// scripted is a client to which a test says what the server says.
type scripted struct {
	*checker
	c, other *conn // members of the room r, of which other publishes
	r        *room
}

const scriptedMessages = 3

// newScript makes two clients that are connected.
func newScript(t *testing.T) *scripted {
	t.Helper()
	o := DefaultOptions()
	o.Seed, o.HistoryMessages, o.ExactCounts = 1, scriptedMessages, true
	x := &scripted{checker: newChecker(&o, target{})}
	x.r = x.rooms[0]
	x.now = time.Unix(1_000_000_000, 0)
	x.c, x.other = x.connect(0), x.connect(1)
	return x
}

func (x *scripted) connect(actor int) *conn {
	x.serial++
	c := &conn{k: x.checker, serial: x.serial, actor: x.actors[actor], phase: open, id: fmt.Sprintf("id%d", x.serial), stays: map[*room]*stay{},
		asked: map[string]*request{}, seen: map[*conn]int{}, heardOf: map[*series]int{}, wire: wire{fd: -1}}
	c.session = &session{conn: c, token: fmt.Sprintf("token %d", c.serial)}
	c.past = &historian{conn: c, reader: x.book.Reader(c, c.serial)}
	x.bySerial[c.serial], x.byID[c.id], x.living[c] = c, c, true
	return c
}

// reads gives c a message of the server's. R and E stand for the room and its epoch.
func (x *scripted) reads(c *conn, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	c.text([]byte(strings.NewReplacer(`"R"`, fmt.Sprintf("%q", x.r.name), `"E"`, `"epoch"`).Replace(text)))
}

// answered gives c the answer to its latest request.
func (x *scripted) answered(c *conn, format string, args ...any) {
	for _, q := range c.asked {
		if string(q.ref) == fmt.Sprint(c.refs) || strings.HasSuffix(string(q.ref), fmt.Sprintf("-%d\"", c.refs)) {
			x.reads(c, `%s,"ref":%s}`, fmt.Sprintf(format, args...), q.ref)
			return
		}
	}
}

// join makes c a member at a position.
func (x *scripted) join(c *conn, a *history.Asked, at int, more string) {
	c.join(x.r, a)
	x.answered(c, `{"type":"joined","room":"R","members":%d,"seq":%d,"epoch":"E"%s`, x.r.possible, at, more)
}

// publish makes other publish messages, which take the numbers from one on, and returns them as members read them.
func (x *scripted) publish(from, n int) (texts []string) {
	for i := range n {
		x.other.past.publish(x.r, nil)
		m := x.other.sent.next() - 1
		texts = append(texts, fmt.Sprintf(`{"type":"broadcast","room":"R","from":%q,"data":%s,"timestamp":1000000000,"seq":%d,"epoch":"E"}`, x.other.id, x.other.payloadOf(m), from+i))
		x.answered(x.other, `{"type":"broadcast_sent","room":"R","recipients":1,"seq":%d,"epoch":"E"`, from+i)
	}
	return texts
}

// resume makes a new connection of c's actor the heir of c, which names its position or not.
func (x *scripted) resume(named bool, answer string) *conn {
	heir := x.connect(0)
	q := heir.expect(&request{kind: "reconnect", token: x.c.session})
	if named {
		at := x.c.stays[x.r].stand.At()
		q.lasts = map[*room]*history.Asked{x.r: x.r.history.Asks(history.Asked{Since: &at, Told: true})}
	}
	heir.claim = x.c.session
	x.c.session.asking++
	x.answered(heir, `{"type":"reconnected","connection_id":%q,"previous_connection_id":%q,"rooms":["R"]%s`, heir.id, x.c.id, strings.ReplaceAll(answer, "R", x.r.name))
	return heir
}

// What breaks a promise of rooms with history is found, and what keeps it is not. Each script begins with two members at 0.
func TestScriptsOfHistories(t *testing.T) {
	since := func(at int, epoch string) *history.Asked {
		return &history.Asked{Since: &history.Position{Seq: uint64(at), Epoch: epoch}, Told: true}
	}
	all := func(x *scripted, c *conn, texts ...string) {
		for _, text := range texts {
			x.reads(c, "%s", text)
		}
	}
	for name, c := range map[string]struct {
		want string // the kind of finding; empty: none
		play func(x *scripted)
	}{
		"in order":          {"", func(x *scripted) { all(x, x.c, x.publish(1, 3)...) }},
		"a number left out": {"number", func(x *scripted) { all(x, x.c, x.publish(1, 3)[1:]...) }},
		"a number twice":    {"number", func(x *scripted) { m := x.publish(1, 2); all(x, x.c, m[0], m[0], m[1]) }},
		"out of order":      {"number", func(x *scripted) { m := x.publish(1, 2); all(x, x.c, m[1], m[0]) }},
		"not at top":        {"lost", func(x *scripted) { all(x, x.c, x.publish(1, 3)[:2]...) }},
		"after leaving":     {"late", func(x *scripted) { x.c.stays[x.r].become(out); all(x, x.c, x.publish(1, 1)...) }},
		"without a number": {"number", func(x *scripted) {
			x.reads(x.c, "%s", strings.Replace(x.publish(1, 1)[0], `,"seq":1,"epoch":"E"`, "", 1))
		}},
		"in another epoch": {"number", func(x *scripted) { x.reads(x.c, "%s", strings.Replace(x.publish(1, 1)[0], `"E"`, `"F"`, 1)) }},
		"a new epoch":      {"epoch", func(x *scripted) { x.reads(x.c, `{"type":"gap","room":"R","seq":5,"epoch":"F","reset":true}`) }},
		"a new epoch after a cause": {"", func(x *scripted) {
			x.now = x.now.Add(time.Minute)
			x.book.Renumbered()
			for _, c := range []*conn{x.c, x.other} {
				x.reads(c, `{"type":"gap","room":"R","seq":5,"epoch":"F","reset":true}`)
			}
		}},
		"published as a backend takes it in": {"", func(x *scripted) {
			x.api = &backends{}
			c := x.connect(2)
			q := c.past.publish(x.r, []string{"not_in_room"})
			c.stayIn(x.r, joining).moving = true
			x.reads(c, `{"type":"joined","room":"R","members":3,"seq":0,"epoch":"E"}`)
			x.reads(c, `{"type":"broadcast_sent","room":"R","recipients":2,"seq":1,"epoch":"E","ref":%s}`, q.ref)
			first := fmt.Sprintf(`{"type":"broadcast","room":"R","from":%q,"data":%s,"timestamp":1000000000,"seq":1,"epoch":"E"}`, c.id, c.payloadOf(0))
			all(x, x.c, first)
			all(x, x.other, first)
			second := x.publish(2, 1)[0]
			all(x, x.c, second)
			all(x, c, second)
		}},
		"sent away as soon as it resumed": {"", func(x *scripted) {
			heir := x.connect(2)
			heir.claim = x.c.session
			x.reads(x.c, `{"type":"member_joined","room":"R","connection_id":%q}`, heir.id)
			x.reads(x.c, `{"type":"member_left","room":"R","connection_id":%q}`, heir.id)
		}},
		"other bytes": {"altered", func(x *scripted) {
			m := x.publish(1, 1)[0]
			x.reads(x.connectIn(2), "%s", m)
			x.reads(x.c, "%s", strings.Replace(m, "1000000000,", "1000000001,", 1))
		}},
		"another message": {"number", func(x *scripted) {
			m := x.publish(1, 2)
			x.reads(x.c, "%s", strings.Replace(m[1], `"seq":2`, `"seq":1`, 1))
		}},
		"two numbers": {"twice", func(x *scripted) {
			m := x.publish(1, 1)
			all(x, x.c, m[0], strings.Replace(m[0], `"seq":1`, `"seq":2`, 1))
		}},
		"not its own": {"number", func(x *scripted) {
			x.publish(1, 1)
			x.reads(x.c, `{"type":"skip","room":"R","seq":1,"epoch":"E","why":"own"}`)
		}},
		"excluded by nobody": {"number", func(x *scripted) {
			x.publish(1, 1)
			x.reads(x.c, `{"type":"skip","room":"R","seq":1,"epoch":"E","why":"excluded"}`)
		}},
		"a true gap": {"", func(x *scripted) {
			m := x.publish(1, 5)
			all(x, x.connectIn(2), m...)
			x.reads(x.c, `{"type":"gap","room":"R","from":1,"seq":2,"epoch":"E"}`)
			all(x, x.c, m[2:]...)
		}},
		"a gap too large": {"gap", func(x *scripted) {
			m := x.publish(1, 5)
			all(x, x.connectIn(2), m...)
			x.reads(x.c, `{"type":"gap","room":"R","from":1,"seq":3,"epoch":"E"}`)
			all(x, x.c, m[3:]...)
		}},
		"a gap of the future": {"", func(x *scripted) {
			m := x.publish(1, 4)
			all(x, x.connectIn(2), m...)
			x.reads(x.c, `{"type":"gap","room":"R","from":1,"seq":1,"epoch":"E"}`)
			all(x, x.c, m[1:]...)
			all(x, x.c, x.publish(5, 3)...)
		}},
		"begins where it asked": {"", func(x *scripted) {
			x.publish(1, 3)
			x.join(x.c, since(1, "epoch"), 1, `,"until":3,"recovered":true`)
			x.reads(x.c, `{"type":"gap","room":"R","from":2,"seq":3,"epoch":"E"}`)
		}},
		"begins later": {"gap", func(x *scripted) {
			x.publish(1, 3)
			x.join(x.c, since(1, "epoch"), 2, `,"until":3,"recovered":true`)
			x.toTop(3)
		}},
		"no gap of an epoch": {"gap", func(x *scripted) { x.publish(1, 3); x.join(x.c, since(3, "before"), 3, `,"until":3,"recovered":true`) }},
		"unknown of its own": {"gap", func(x *scripted) {
			x.publish(1, 3)
			x.join(x.c, since(3, "epoch"), 3, `,"until":3,"recovered":false,"gap":true`)
		}},
		"missing is kept": {"gap", func(x *scripted) {
			m := x.publish(1, 4)
			all(x, x.connectIn(2), m...)
			x.join(x.c, since(0, "epoch"), 2, `,"until":4,"recovered":false,"gap":true,"missing":{"from":1,"to":2}`)
			x.toTop(4)
		}},
		"missing is gone": {"", func(x *scripted) {
			m := x.publish(1, 5)
			all(x, x.connectIn(2), m...)
			x.join(x.c, since(0, "epoch"), 2, `,"until":5,"recovered":false,"gap":true,"missing":{"from":1,"to":2}`)
			all(x, x.c, m[2:]...)
		}},
		"more than is kept": {"replay", func(x *scripted) {
			x.publish(1, 5)
			x.join(x.c, since(1, "epoch"), 1, `,"until":5,"recovered":true`)
			x.toTop(5)
		}},
		"until is short": {"replay", func(x *scripted) {
			x.publish(1, 3)
			x.join(x.c, since(1, "epoch"), 1, `,"until":2,"recovered":true`)
			x.toTop(3)
		}},
		"no until":           {"replay", func(x *scripted) { x.publish(1, 3); x.join(x.c, &history.Asked{Last: 1}, 3, ``) }},
		"less than the last": {"replay", func(x *scripted) { x.publish(1, 3); x.join(x.c, &history.Asked{Last: 1}, 1, `,"until":3`); x.toTop(3) }},
		"resumed": {"", func(x *scripted) {
			all(x, x.resume(true, `,"positions":{"R":{"seq":0,"epoch":"epoch","until":1}}`), x.publish(1, 1)...)
		}},
		"resumed bare": {"", func(x *scripted) {
			m := x.publish(1, 2)
			all(x, x.c, m[0])
			all(x, x.resume(false, `,"positions":{"R":{"seq":0,"epoch":"epoch","until":2}},"repeats":{"R":1}`), m...)
		}},
		"repeats too low": {"replay", func(x *scripted) {
			m := x.publish(1, 2)
			all(x, x.c, m...)
			all(x, x.resume(false, `,"positions":{"R":{"seq":0,"epoch":"epoch","until":2}},"repeats":{"R":1}`), m...)
		}},
		"proof of the unread": {"replay", func(x *scripted) {
			m := x.publish(1, 2)
			all(x, x.resume(false, `,"positions":{"R":{"seq":1,"epoch":"epoch","until":2}}`), m[1])
		}},
		"no position":       {"number", func(x *scripted) { x.resume(true, "") }},
		"a wrong page":      {"replay", func(x *scripted) { x.page(x.publish(1, 3)[:2], 1, 3) }},
		"a right page":      {"", func(x *scripted) { x.page(x.publish(1, 3), 1, 3) }},
		"a page of too few": {"gap", func(x *scripted) { m := x.publish(1, 3); all(x, x.connectIn(2), m...); x.page(m[1:], 2, 3) }},
	} {
		t.Run(name, func(t *testing.T) {
			x := newScript(t)
			x.join(x.c, nil, 0, "")
			x.join(x.other, nil, 0, "")
			c.play(x)
			x.numbersCame(c.want == "lost")
			x.book.Settle(func(int) bool { return true })
			found := slices.Sorted(maps.Keys(x.report.Found))
			if c.want == "" && len(found) > 0 || c.want != "" && !slices.Equal(found, []string{c.want}) {
				t.Errorf("found %v, want %q: %v", found, c.want, x.report.Findings)
			}
		})
	}
}

// connectIn makes a further member, at 0.
func (x *scripted) connectIn(actor int) *conn {
	c := x.connect(actor)
	s := c.stayIn(x.r, joining)
	s.become(in)
	x.stand(c, 0)
	return c
}

// stand tells a member a position.
func (x *scripted) stand(c *conn, at int) {
	x.reads(c, `{"type":"position","room":"R","seq":%d,"epoch":"E"}`, at)
}

// toTop takes c to a number without any message.
func (x *scripted) toTop(n int) { x.stand(x.c, n) }

// page makes c read a page of the newest messages.
func (x *scripted) page(messages []string, low, top int) {
	q := x.c.expect(&request{kind: "history", room: x.r, start: x.r.history.Asks(history.Asked{Limit: pageLimit})})
	x.reads(x.c, `{"type":"history","room":"R","epoch":"E","low":%d,"top":%d,"messages":[%s],"more":false,"ref":%s}`, low, top, strings.Join(messages, ","), q.ref)
	x.toTop(top)
}

// A server whose rooms have no history is told apart at the first join, with a sentence; later, it is a finding.
func TestNoHistory(t *testing.T) {
	x := newScript(t)
	x.c.join(x.r, nil)
	x.answered(x.c, `{"type":"joined","room":"R","members":1`)
	if !errors.Is(x.fatal, ErrUnreachable) || !strings.Contains(x.fatal.Error(), "--history 'verify-**=messages:3'") {
		t.Errorf("the run ends with %v", x.fatal)
	}
	x = newScript(t)
	x.join(x.other, nil, 0, "")
	x.c.join(x.r, nil)
	x.answered(x.c, `{"type":"joined","room":"R","members":2`)
	if x.fatal != nil || x.report.Found["number"] != 1 {
		t.Errorf("the run ends with %v; found is %v", x.fatal, x.report.Found)
	}
}

// Messages with a number are read in the usual shape as in any other.
func TestNumberedPayloads(t *testing.T) {
	data := appendPayload(nil, messageName{"a1b2c3", 17, 4}, 5)
	usual := fmt.Appendf(nil, `{"type":"broadcast","room":"r","from":"x","data":%s,"timestamp":17,"seq":5,"epoch":"e-_1"}`, data)
	var fast, slow body
	if !readRelayed(usual, &fast) {
		t.Fatalf("%s is not taken for the usual shape", usual)
	}
	if err := readBody(append([]byte{' '}, usual...), &slow); err != nil || *fast.Seq != 5 || *slow.Seq != 5 || fast.Epoch != "e-_1" || slow.Epoch != fast.Epoch || fast.From != slow.From || string(fast.Payload) != string(slow.Payload) {
		t.Errorf("%s is read as %+v and as %+v, %v", usual, fast, slow, err)
	}
	for _, bad := range []string{`"seq":5,"epoch":"e"}}`, `"seq":5x,"epoch":"e"}`, `"seq":5,"epoch":e}`, `"seq":5,"epoch":"e","more":1}`} {
		if readRelayed(fmt.Appendf(nil, `{"type":"broadcast","room":"r","from":"x","data":%s,"timestamp":17,%s`, data, bad), new(body)) {
			t.Errorf("%s passes for the usual shape", bad)
		}
	}
}
