package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// quietFor is how long the player waits where the server must not send. A correct server passes with any value; a faulty
// one could pass with 0.
const quietFor = 30 * time.Millisecond

// player plays one row on one connection.
//
// Owner: one play call.
type player struct {
	row        row
	conn       *conn
	timer      *time.Timer
	want       []event
	heard      int     // how many events of want have come
	compressed int     // compressed messages of the server
	closed     *signal // the server's close frame
	over       bool    // the stream has ended
	cut        bool    // a write failed: the server has closed, and its last frames decide
	said       []string
}

// errMoot is the verdict on a case that does not apply under the negotiated terms.
var errMoot = errors.New("moot: under the negotiated terms the client must not refer back across messages")

// play plays one row against the server. Its error tells the frames sent, the events wanted and those heard.
func play(o Options, r row) error {
	deadline := o.deadlineFor(r, time.Now())
	c, err := dial(o.Addr, r, o.chunkFor(r), deadline)
	if err != nil {
		return fmt.Errorf("case %s: %w", r.number, err)
	}
	defer c.hangUp()
	if r.context && c.terms.clientForgets {
		return errMoot
	}
	p := &player{row: r, conn: c, want: r.want, timer: time.NewTimer(time.Until(deadline))}
	defer p.timer.Stop()
	if err = p.run(o); err != nil {
		return p.report(err)
	}
	return nil
}

func (p *player) run(o Options) error {
	if p.row.rounds != nil {
		if err := p.converse(o.messagesFor(p.row), *p.row.rounds); err != nil {
			return err
		}
	} else if err := p.act(p.row.steps); err != nil {
		return err
	}
	if p.row.end.byUs {
		if err := p.hearUntil(len(p.want)); err != nil {
			return err
		}
		p.write(closing(1000, "").append(nil))
	}
	for !p.over {
		if err := p.hear(); err != nil {
			return err
		}
	}
	switch {
	case p.closed == nil:
		return errors.New("the stream ended without a close frame")
	case p.row.shrinks && p.compressed == 0:
		return errors.New("nothing that the server said was compressed")
	}
	return nil
}

// act sends the steps. The frames between two waits go out in one write, unless a step is chopped.
func (p *player) act(steps []step) error {
	var pending []byte
	for _, s := range steps {
		if s.chop == joined && s.awaits == 0 && !s.quiet {
			pending = s.octets(pending)
			continue
		}
		p.write(pending)
		pending = nil
		var err error
		switch {
		case s.quiet:
			err = p.listen()
		case s.awaits > 0:
			err = p.hearUntil(s.awaits)
		case s.chop == perFrame:
			for _, f := range s.frames {
				p.write(f.append(nil))
			}
		default:
			for piece := range slices.Chunk(s.octets(nil), s.chop) {
				p.write(piece)
			}
		}
		if err != nil {
			return err
		}
	}
	p.write(pending)
	return nil
}

// write sends octets, or nothing once a write has failed.
func (p *player) write(octets []byte) {
	if !p.cut && len(octets) > 0 {
		p.cut = p.conn.write(octets) != nil
	}
}

// converse sends count messages, each after the echo of the one before.
func (p *player) converse(count int, r rounds) error {
	for n := range count {
		payload := r.corpus.cut(n, r.size)
		p.said = p.said[:0]
		p.want, p.heard = []event{{r.corpus.kind, lit(string(payload))}}, 0
		p.write(p.encode(r, payload))
		if err := p.hearUntil(1); err != nil {
			return fmt.Errorf("message %d of %d: %w", n+1, count, err)
		}
	}
	return nil
}

// encode makes a message of payload, compressed if that was negotiated, in frames of r.fragment octets.
func (p *player) encode(r rounds, payload []byte) []byte {
	first := opText
	if r.corpus.kind == binaryMessage {
		first = opBinary
	}
	if p.conn.deflate != nil {
		payload = p.conn.deflate.compress(payload)
		first |= rsv1 << 4
	}
	var out []byte
	for r.fragment > 0 && len(payload) > r.fragment {
		out = appendFrame(out, first, payload[:r.fragment])
		payload, first = payload[r.fragment:], opContinuation
	}
	return appendFrame(out, 0x80|first, payload)
}

// hearUntil waits until that many events have been heard.
func (p *player) hearUntil(events int) error {
	for p.heard < events {
		if err := p.hear(); err != nil {
			return err
		}
		if p.closed != nil {
			return fmt.Errorf("the server closes with %d of %d events owed", len(p.want)-p.heard, len(p.want))
		}
		if p.over {
			return fmt.Errorf("the stream ends with %d of %d events owed", len(p.want)-p.heard, len(p.want))
		}
	}
	return nil
}

// hear waits for one signal and judges it.
func (p *player) hear() error {
	select {
	case s := <-p.conn.signals:
		return p.judge(s)
	case <-p.timer.C:
		if p.closed != nil {
			return errors.New("deadline: the close frame has come, but the server does not end the stream")
		}
		return errors.New("deadline")
	}
}

// listen waits for quietFor, in which the server must not send.
func (p *player) listen() error {
	moment := time.NewTimer(quietFor)
	defer moment.Stop()
	select {
	case s := <-p.conn.signals:
		return errors.Join(p.judge(s), fmt.Errorf("%v, before any answer was due", s))
	case <-moment.C:
		return nil
	}
}

func (p *player) judge(s signal) error {
	p.said = append(p.said[max(0, len(p.said)-saidMax+1):], s.String())
	switch {
	case s.err != nil:
		return s.err
	case s.ended:
		p.over = true
		return nil
	case s.closing:
		p.closed = &s
		return p.judgeClose(s)
	}
	if p.heard == len(p.want) {
		return fmt.Errorf("%v, which was not wanted", s)
	}
	if due := p.want[p.heard]; due.kind != s.kind || !due.payload.matches(s.payload) {
		return fmt.Errorf("%v, where %v was due%s", s, due, firstDifference(due.payload, s.payload))
	}
	p.heard++
	if s.compressed {
		p.compressed++
	}
	return nil
}

func (p *player) judgeClose(s signal) error {
	if bare := len(s.payload) == 0; bare && !p.row.end.bare || !bare && !slices.Contains(p.row.end.codes, s.code()) {
		return fmt.Errorf("%v, where %v was due", s, p.row.end)
	}
	if p.heard < len(p.want) {
		note := ""
		if p.row.lenient != nil && p.heard == len(p.row.lenient) {
			note = " (NON-STRICT in the public suite)"
		}
		return fmt.Errorf("%v, while %v was still owed%s", s, p.want[p.heard], note)
	}
	return nil
}

// firstDifference says where two payloads differ: with 4 MB their heads may look alike.
func firstDifference(due blob, got []byte) string {
	want := due.bytes()
	n := 0
	for n < min(len(want), len(got)) && want[n] == got[n] {
		n++
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("; they differ from octet %d on: %s", n, shorten(got[n:], len(got)-n))
}

// saidMax bounds each list in a report: the first steps and events wanted, the last events heard.
const saidMax = 12

// report makes the failure's text for the reader of a test's output.
func (p *player) report(cause error) error {
	var b strings.Builder
	fmt.Fprintf(&b, "case %s (§%s) %s: %v\n", p.row.number, p.row.clause, p.row.title, cause)
	line := func(head, what string) { fmt.Fprintf(&b, "  %-7s%s\n", head, what) }
	if p.row.offer != "" {
		line("offer", p.row.offer)
	}
	if p.conn.terms != nil {
		line("agreed", fmt.Sprintf("%+v", *p.conn.terms))
	}
	for i, s := range p.row.steps {
		if i == saidMax {
			line("sent", fmt.Sprintf("… %d more", len(p.row.steps)-i))
			break
		}
		line("sent", s.String())
	}
	if p.conn.chunk > 0 {
		line("sent", fmt.Sprintf("in writes of %d", p.conn.chunk))
	}
	for i, e := range p.want {
		if i == saidMax {
			line("want", fmt.Sprintf("… %d more", len(p.want)-i))
			break
		}
		line("want", e.String())
	}
	line("want", p.row.end.String())
	for _, s := range p.said {
		line("heard", s)
	}
	if p.cut {
		line("", "(a write failed: the server has ended the connection)")
	}
	return errors.New(strings.TrimRight(b.String(), "\n"))
}
