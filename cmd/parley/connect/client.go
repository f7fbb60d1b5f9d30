package connect

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/cmd/parley/client"
)

// conversation is the client: over one connection after the other.
//
// Owner: the goroutine that runs Run.
type conversation struct {
	o      Options
	limits Limits
	p      printer
	retry  retry
	input  chan line // nil once it has ended, or if it is not read
	held   *line     // a line that waits for the connection
	done   chan struct{}

	rooms   []*room // in the order of their joins
	current string  // the room that a typed text goes to
	session session
	shown   string // the access token of the last handshake
	refs    int
	greeted bool // the first connection has opened

	// of a connection
	link    *link
	asks    map[string]ask // questions without an answer, by their ref
	opening int            // answers that it waits for before it takes input; the greeting is one
	begun   time.Time
	heard   time.Time // of the last frame
	asked   bool      // the server was asked whether it is there
	leaving time.Time // the close frame was sent then; zero before
	closing bool      // the input has ended, and the last answer is awaited
	failure error     // that ends the client with the connection
}

// ask is a question to the server.
type ask struct {
	kind kind
	room string
	at   time.Time
}

// kind is what a question is for.
type kind uint8

const (
	askOther   kind = iota
	askOpening      // auth, or a join, while the connection opens
	askResume
	askJoin  // later
	askPing  // typed
	askQuiet // after a long silence
	askLast  // behind the last line of the input
)

// Run connects and stays until the input ends, ctx is done, or the server sends the client away for good. Its errors are
// [client.Error].
func Run(ctx context.Context, o Options) error {
	if o.Limits == (Limits{}) {
		o.Limits = usual
	}
	c := &conversation{o: o, limits: o.Limits, p: printer{out: o.Out, notes: o.Err, form: o.Form}, done: make(chan struct{}),
		retry: retry{min: o.Limits.RetryMin, max: o.Limits.RetryMax, calm: o.Limits.RetryAgain}}
	defer close(c.done)
	for _, name := range o.Rooms {
		c.want(name)
	}
	if len(o.Rooms) > 0 {
		c.current = o.Rooms[0]
	}
	if !o.Listen {
		c.input = make(chan line)
		go readLines(o.In, c.input, c.done)
	}
	return c.run(ctx)
}

func (c *conversation) run(ctx context.Context) error {
	for {
		l, err := c.dial(ctx)
		switch {
		case ctx.Err() != nil:
			if l != nil {
				l.end()
			}
			return nil
		case err != nil && (!c.greeted || codeOf(err) == client.Refused || codeOf(err) == client.Usage):
			return err
		case err != nil:
			c.p.say("%v", err)
		default:
			if over, err := c.serve(ctx, l); over {
				return err
			}
		}
		if !c.wait(ctx, c.retry.next(time.Now())) {
			return nil
		}
	}
}

func codeOf(err error) int {
	asked, _ := errors.AsType[client.Error](err)
	return asked.Code
}

// wait waits for the next attempt. It reports false if the client shall end.
func (c *conversation) wait(ctx context.Context, d time.Duration) bool {
	c.p.say("the next attempt is in %.1f s", d.Seconds())
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		in := c.input
		if c.held != nil {
			in = nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case one, ok := <-in:
			switch {
			case !ok || one.text == "/quit":
				return false
			default:
				c.held = &one
				c.p.say("the next line waits until there is a connection")
			}
		}
	}
}

// serve speaks over a connection until it ends. over is true if the client ends with it.
func (c *conversation) serve(ctx context.Context, l *link) (over bool, err error) {
	defer l.end()
	defer l.hurry(ctx)()
	now := time.Now()
	c.link, c.asks, c.begun, c.heard, c.asked, c.closing = l, map[string]ask{}, now, now, false, false
	c.leaving, c.opening = time.Time{}, 1
	if c.o.Form == Raw && len(c.rooms) == 0 && c.session.token == "" {
		c.opened() // any WebSocket server will do, also one that does not greet
	}
	tick := time.NewTicker(min(time.Second, c.limits.Quiet/4, c.limits.Close/2))
	defer tick.Stop()
	interrupt := ctx.Done()
	for {
		if c.p.failed != nil && c.failure == nil {
			c.failure = client.Error{Code: client.Failed, Err: fmt.Errorf("write what arrives: %w", c.p.failed)}
			c.leave()
		}
		select {
		case a, ok := <-l.arrivals:
			if !ok {
				return c.ended(arrival{err: io.ErrUnexpectedEOF})
			}
			c.heard, c.asked = time.Now(), false
			if a.err != nil || a.op == ws.OpClose {
				return c.ended(a)
			}
			c.arrived(&a)
		case one, ok := <-c.lines():
			c.take(one, ok)
		case <-interrupt:
			interrupt = nil
			l.write = interrupted
			c.leave()
		case now := <-tick.C:
			if a := c.look(now); a.err != nil {
				return c.ended(a)
			}
		}
	}
}

// lines is the input, if the connection takes it now.
func (c *conversation) lines() <-chan line {
	if c.opening > 0 || c.closing || !c.leaving.IsZero() {
		return nil
	}
	if c.held == nil {
		return c.input
	}
	held := make(chan line, 1)
	held <- *c.held
	return held
}

// take carries out a line of the input. ok is false at its end.
func (c *conversation) take(one line, ok bool) {
	c.held = nil
	switch {
	case !ok:
		c.input = nil
		c.finish()
	case one.err != nil:
		c.p.say("%v", one.err)
	default:
		c.obey(one.text)
	}
}

// finish leaves behind the answer to all that was sent: the server answers a client's messages in their order.
func (c *conversation) finish() {
	c.closing = true
	c.ask(askLast, "", &request{Type: "ping"})
}

// look does what is due at a time. Its arrival has an error if the connection is given up.
func (c *conversation) look(now time.Time) (a arrival) {
	silent := now.Sub(c.heard)
	switch {
	case !c.leaving.IsZero():
		if now.Sub(c.leaving) > c.limits.Close {
			a.err = errSlowClose
		}
	case c.closing && silent > c.limits.Answer:
		c.leave()
	case c.opening > 0 && now.Sub(c.begun) > c.limits.Answer:
		a.err = fmt.Errorf("the server does not answer as Parley does, within %v", c.limits.Answer)
	case silent > c.limits.Gone:
		a.err = fmt.Errorf("nothing was heard of the server for %v", silent.Round(time.Second))
	case silent > c.limits.Quiet && !c.asked:
		c.asked = true
		c.ask(askQuiet, "", &request{Type: "ping"})
	}
	for _, r := range c.rooms {
		if !r.again.IsZero() && now.After(r.again) && c.opening == 0 {
			r.again = time.Time{}
			c.join(r, askJoin)
		}
	}
	return a
}

var errSlowClose = errors.New("the server does not answer the close frame")

// leave sends a close frame, and waits for the server's.
func (c *conversation) leave() {
	if c.leaving.IsZero() {
		c.leaving = time.Now()
		c.close(ws.StatusNormalClosure, "")
	}
}

func (c *conversation) close(code ws.StatusCode, reason string) {
	c.p.sent(ws.OpClose, ws.NewCloseFrameBody(code, reason))
	c.link.bye(code, reason)
}

// ended judges the end of a connection.
func (c *conversation) ended(a arrival) (over bool, err error) {
	c.session.dropped()
	for _, r := range c.rooms {
		r.again, r.member = time.Time{}, false
	}
	if a.op == ws.OpClose {
		c.p.got(&arrival{op: ws.OpClose, payload: closeBody(a)})
		if c.leaving.IsZero() {
			c.close(ws.StatusNormalClosure, "")
		}
	}
	broken, isFault := errors.AsType[*fault](a.err)
	switch {
	case !c.leaving.IsZero():
		return true, c.failure
	case isFault:
		c.close(broken.code, "")
		c.link.drain(c.limits.Close)
		return true, client.Error{Code: client.Failed, Err: fmt.Errorf("%s breaks the WebSocket protocol: %w", c.address(), broken)}
	case a.op == ws.OpClose:
		return c.sentAway(a)
	case !c.greeted && c.opening > 0:
		return true, client.Error{Code: client.Unreachable, Err: fmt.Errorf("%s: %w", c.address(), cause(a.err))}
	}
	if !errors.Is(a.err, net.ErrClosed) { // the client closed it, and has said why
		c.p.say("the connection broke: %v", cause(a.err))
	}
	return false, nil
}

// cause words the end of a connection without a close frame.
func cause(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the server ended it without a close frame")
	}
	return err
}

func closeBody(a arrival) []byte {
	if a.code == ws.StatusNoStatusRcvd {
		return nil
	}
	return ws.NewCloseFrameBody(a.code, a.reason)
}

// sentAway judges a close frame of the server.
func (c *conversation) sentAway(a arrival) (over bool, err error) {
	text := strconv.Itoa(int(a.code))
	if a.reason != "" {
		text += " " + escaped(a.reason)
	}
	why := farewell(a.code)
	expired := a.code == 4006
	if expired && !c.anotherToken() {
		why = "the access token has expired; connect with another one"
	}
	switch {
	case a.code == 4001 && c.shown == "":
		return true, client.Error{Code: client.Refused, Err: fmt.Errorf("%s (%s): it demands an access token; give one with --token-file", why, text)}
	case why != "":
		return true, client.Error{Code: client.Refused, Err: fmt.Errorf("%s (%s)", why, text)}
	case !c.greeted && c.opening > 0 && !expired:
		return true, client.Error{Code: client.Failed, Err: fmt.Errorf("%s closed the connection at once (%s)", c.address(), text)}
	}
	c.p.say("the server closed the connection (%s)", text)
	return false, nil
}

// anotherToken reports whether there is an access token beside the one that was shown.
func (c *conversation) anotherToken() bool {
	token, err := c.o.Token()
	return err == nil && token != "" && token != c.shown
}

// opened notes that the connection takes input.
func (c *conversation) opened() {
	c.opening = 0
	c.retry.openSince = time.Now()
	if !c.greeted && c.o.Terminal && c.o.Form != JSON {
		c.p.say("%s; /help lists the commands", cmp.Or(c.whereTo(), "no room is joined yet"))
	}
	c.greeted = true
}

func (c *conversation) whereTo() string {
	if c.current == "" {
		return ""
	}
	return "what you type goes to " + escaped(c.current)
}

// tell sends a message without a ref.
func (c *conversation) tell(text []byte) {
	c.p.sent(ws.OpText, text)
	c.link.send(ws.OpText, text)
}

// ask sends a question.
func (c *conversation) ask(k kind, room string, r *request) {
	c.refs++
	r.Ref = "parley-" + strconv.Itoa(c.refs)
	c.asks[r.Ref] = ask{k, room, time.Now()}
	if k == askOpening || k == askResume {
		c.opening++
	}
	text := r.encoded()
	if r.Type == "auth" {
		shown := *r
		shown.Token = "(the token)"
		c.p.sent(ws.OpText, shown.encoded())
	} else {
		c.p.sent(ws.OpText, text)
	}
	c.link.send(ws.OpText, text)
}
