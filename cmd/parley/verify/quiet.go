package verify

import (
	"fmt"
	"slices"
	"time"
)

// Every few seconds all clients pause. When all requests are answered, all promised messages must have come, and the server
// must name the right members of every room. Then all events up to that point are settled and forgotten.

// stage is the progress of a quiet point.
type stage uint8

const (
	acting   stage = iota
	draining       // waits for answers
	settling       // waits for deliveries
	asking         // waits for the right numbers of members, and the last notices
)

const (
	quietEvery = 2500 * time.Millisecond
	lookEvery  = 20 * time.Millisecond
	drainMin   = 150 * time.Millisecond // for the last messages of connections that have ended
)

// quietPoint is a pause.
//
// Owner: the checker.
type quietPoint struct {
	stage stage
	next  time.Time     // when the next one begins, or the present one is looked at again
	limit time.Duration // granted: the end of patience with the present stage
	still time.Duration // granted when all requests had been answered
	open  map[*room]*roll
}

// roll is the question for a room's members.
//
// Owner: its quiet point.
type roll struct {
	conn  *conn
	asked bool // an answer is awaited
	right bool
	count int // of the first page
	ids   []string
	named bool   // the members were right
	wrong string // the fault of the latest answer
}

// countsWithin is how long after the last change a worker's counts of the others' members may be wrong.
const countsWithin = time.Second

// enter goes on to a stage.
func (k *checker) enter(s stage) {
	k.pause.stage = s
	k.pause.limit = k.granted + k.opt.Patience
}

// stepQuiet takes the quiet point a step further, and begins it when it is due.
func (k *checker) stepQuiet() {
	q := &k.pause
	if k.now.Before(q.next) {
		return
	}
	q.next = k.now.Add(lookEvery)
	late := k.granted >= q.limit
	switch q.stage {
	case acting:
		if k.unsettled() {
			return
		}
		k.calm = true
		for c := range k.living {
			c.wake()
		}
		k.enter(draining)
	case draining:
		if k.idle() && k.granted >= q.limit+drainMin-k.opt.Patience || late {
			k.silent(0)
			for c := range k.living {
				c.ping()
			}
			k.pause.still = k.granted
			k.enter(settling)
		}
	case settling:
		if !k.idle() && !late {
			return
		}
		if k.allCame(late) {
			k.callRolls()
			k.enter(asking)
		}
	case asking:
		done := k.rollsRight(late) && k.idle() && k.noticesWhole(late)
		if (done || late) && k.allCame(late) {
			k.settle()
		}
	}
}

// allCame reports whether all promised messages have come. When it is late, it reports a missing one as lost.
func (k *checker) allCame(late bool) bool {
	s, p, n := k.missing()
	if s != nil && late {
		k.found("lost", s.room, []*conn{s.conn, p}, fmt.Sprintf("%v never reads message %d of %v in %s, after %v of quiet",
			s.conn, n, p, s.room.name, k.opt.Patience))
	}
	sent, by := k.api.owed()
	if sent != nil && late {
		k.found("lost", nil, []*conn{by}, fmt.Sprintf("%v never reads message %d of %s, to %s in %s, after %v of quiet", by, sent.n, sent.series.name, sent.to.field, sent.by, k.opt.Patience))
	}
	return s == nil && sent == nil && k.numbersCame(late) || late
}

// numbersCame reports whether all members of rooms with history have the newest number. When it is late, it reports one that has
// not.
func (k *checker) numbersCame(late bool) bool {
	for _, r := range k.rooms {
		for s := range r.members {
			if !s.certain || s.stand == nil {
				continue
			}
			if what, is := s.stand.Behind(); is && late {
				k.found("lost", r, []*conn{s.conn}, fmt.Sprintf("%v %s, after %v of quiet", s.conn, what, k.opt.Patience))
				return true
			} else if is {
				return false
			}
		}
	}
	return true
}

// idle reports whether no request awaits an answer.
func (k *checker) idle() bool {
	for c := range k.living {
		if c.mode != lively || c.claimed || c.dismissed != 0 {
			continue
		}
		if c.phase != open || k.speaks.tokens && c.session == nil || c.unsure || k.speaks.refs && len(c.asked) > 0 {
			return false
		}
	}
	return k.api == nil || k.api.idle()
}

// silent reports requests and tokens that are overdue by more than margin beyond Patience.
func (k *checker) silent(margin time.Duration) {
	if !k.speaks.refs || k.disturbed() {
		return
	}
	if k.api != nil {
		k.api.silent(margin)
	}
	for c := range k.living {
		if c.mode != lively || c.claimed || c.unsure || c.dismissed != 0 {
			continue
		}
		if c.tokenless(k.opt.Patience + margin) {
			c.tokenLate = true
			k.found("silent", nil, []*conn{c}, fmt.Sprintf("%v is given no reconnect_token", c))
		}
		for key, q := range c.asked {
			if k.granted-q.granted > k.opt.Patience+margin {
				delete(c.asked, key)
				k.found("silent", q.room, []*conn{c}, fmt.Sprintf("%v asked %s %v ago and is not answered", c, q.kind, k.now.Sub(q.at).Round(time.Millisecond)))
			}
		}
	}
}

// missing finds a message that should have come.
func (k *checker) missing() (*stay, *conn, int) {
	for _, r := range k.rooms {
		for s := range r.members {
			if !s.certain {
				continue
			}
			if p, n, is := s.owed(); is {
				return s, p, n
			}
		}
	}
	return nil, nil, 0
}

// callRolls begins to ask one member of each room for the room's members.
func (k *checker) callRolls() {
	k.pause.open = map[*room]*roll{}
	if !k.speaks.members {
		return
	}
	for _, r := range k.rooms {
		for s := range r.members {
			if s.certain {
				k.pause.open[r] = &roll{conn: s.conn}
				break
			}
		}
	}
}

// rollsRight reports whether the answers for all rooms are right; it asks again where they are not.
func (k *checker) rollsRight(late bool) bool {
	all := true
	for r, roll := range k.pause.open {
		switch {
		case roll.right || !roll.conn.sure():
		case late:
			k.found("count", r, []*conn{roll.conn}, fmt.Sprintf("%v asks for the members of %s and gets wrong answers until the end: %s", roll.conn, r.name, roll.wrong))
		default:
			all = false
			switch {
			case roll.asked:
			case !roll.named:
				roll.count, roll.ids = -1, nil
				roll.ask(r, "")
			case k.opt.ExactCounts || k.granted-k.pause.still > countsWithin:
				roll.recipients(r)
			}
		}
	}
	return all
}

// ask asks for a page of the members.
func (x *roll) ask(r *room, after string) {
	x.asked = true
	c := x.conn
	q := c.expect(&request{kind: "members", room: r})
	text := fmt.Appendf(nil, `{"type":"members","room":%q`, r.name)
	if after != "" {
		text = fmt.Appendf(text, `,"after":%q`, after)
	}
	c.note(step{what: "asks for the members of", room: r, n: -1})
	q.count = func(m *body) { x.answer(r, m) }
	c.say(withRef(text, q.ref))
}

// answer takes a page, and asks for the next one or checks them all.
func (x *roll) answer(r *room, m *body) {
	x.asked = false
	if m == nil || m.Count == nil {
		x.wrong = "no answer"
		return
	}
	ids, err := m.ids()
	if err != nil {
		x.wrong = err.Error()
		return
	}
	if x.count < 0 {
		x.count = *m.Count
	}
	x.ids = append(x.ids, ids...)
	if m.Partial && m.Next != "" && x.conn.sure() {
		x.ask(r, m.Next)
		return
	}
	x.wrong = x.judge(r)
	x.named = x.wrong == ""
}

// judge compares the members that the server named with the certain and the possible ones. It returns the fault, "" for
// none.
func (x *roll) judge(r *room) string {
	k := x.conn.k
	k.report.Checked["rolls"]++
	slices.Sort(x.ids)
	unique := slices.Compact(x.ids)
	for s := range r.members {
		if _, is := slices.BinarySearch(unique, s.conn.id); s.certain && !is {
			return fmt.Sprintf("%v (%s) is not among the %d", s.conn, s.conn.id, len(unique))
		}
	}
	for _, id := range unique {
		c := k.byID[id]
		if c == nil || c.stays[r] == nil || c.stays[r].state == out || c.phase == ended {
			return fmt.Sprintf("%s (%v) is among the %d, and is no member", id, c, len(unique))
		}
	}
	if x.count != len(unique) {
		return fmt.Sprintf("the count is %d, the members are %d", x.count, len(unique))
	}
	return ""
}

// recipients makes several members publish in a room whose members are known: each time, and on each worker, the server
// must count exactly these. It may have ended half-open members in between.
func (x *roll) recipients(r *room) {
	k := x.conn.k
	silent, publishers := 0, []*conn{}
	for s := range r.members {
		switch {
		case s.possible && !s.certain:
			silent++
		case s.certain && len(publishers) < publishersMax && s.conn.actor.mayPublish(r):
			publishers = append(publishers, s.conn)
		}
	}
	open, unanswered := len(publishers), false
	x.asked, x.right = open > 0, open == 0
	for _, c := range publishers {
		c.publish(r).count = func(m *body) {
			if open--; open == 0 {
				x.asked, x.right = false, !unanswered
			}
			if m == nil || m.Recipients == nil {
				x.wrong, unanswered, x.right = "no answer", true, false
				return
			}
			k.report.Checked["recipients"]++
			n, most := *m.Recipients, len(x.ids)-1
			if n > most || n < most-silent {
				k.found("count", r, []*conn{c}, fmt.Sprintf("%v publishes in %s to %d recipients, there are %d", c, r.name, n, most))
			}
		}
	}
}

// publishersMax bounds the members that publish in one room at a quiet point.
const publishersMax = 4

// noticesWhole reports whether every member has got all notices.
func (k *checker) noticesWhole(late bool) bool {
	if !k.speaks.members || k.opt.AnnounceMax == 0 || k.disturbed() || k.report.Done["refused overloaded"] > 0 {
		return true
	}
	for _, r := range k.rooms {
		if r.quiet || r.possible > k.opt.AnnounceMax/2 {
			r.quiet = true
			continue
		}
		if s, other, what := r.missedNotice(); s != nil {
			if late {
				k.found("notice", r, []*conn{s.conn, other}, fmt.Sprintf("%v never reads %s of %v in %s", s.conn, what, other, r.name))
				continue
			}
			return false
		}
	}
	return true
}

// settle ends the quiet point: it checks the events up to now, and forgets them.
func (k *checker) settle() {
	k.judgeCounts(true)
	k.judgeSuspicions()
	k.suspicions = k.suspicions[:0]
	k.lostHoles()
	k.evt++
	for _, r := range k.rooms {
		for s := range r.members {
			if s.conn.phase == ended {
				s.over = true
				s.awaited = s.awaited && s.conn.session != nil && s.conn.session.asking > 0 // else the claimant has ended, too
				s.reckon()
			}
		}
		r.forgetNotices(k.evt)
	}
	if k.remembers() {
		k.book.Settle(func(serial int) bool { return k.bySerial[serial] != nil || k.api.seriesOf(serial) != nil })
	}
	k.settleDeliveries()
	k.api.settle(k)
	k.settled = k.now
	k.report.Done["quiet points"]++
	k.pause.stage, k.pause.next = acting, k.now.Add(quietEvery)
	k.calm = false
	k.points++
}
