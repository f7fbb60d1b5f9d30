package client

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/gobwas/ws"
	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/show"
)

// Lines are published over the API's socket. One goroutine reads lines, one sends them, one takes the answers, which come in the
// order of the lines. The window holds the numbers of the lines that have no answer yet, so that memory is bounded by one line
// and by the window.

const (
	windowLines   = 1000
	linesAhead    = 16 // that were read and not sent
	lineBytesMax  = 8 << 20
	reportMax     = 1 << 20          // bytes of one answer
	socketSilence = 60 * time.Second // the server pings every 20 s
)

// line is a line of the input, or the error in its place.
type line struct {
	number int
	text   []byte
	err    error
}

// pipeline sends lines and takes their answers.
//
// Owner: the sender; the fields of the receiver are read when the window is empty.
type pipeline struct {
	at     *place
	what   *publication
	conn   net.Conn
	in     *bufio.Reader
	mu     sync.Mutex // guards out
	out    *bufio.Writer
	window chan int      // numbers of the lines under way
	failed chan struct{} // closed at the first failure
	broken chan struct{} // closed at the end of the socket

	// of the receiver
	published  int
	recipients int
	delayed    bool
	absent     missing
	failure    error // the first
	behind     int   // lines that were published behind it
	end        error // why the socket ended
}

// publishLines publishes each line of the input.
func (r *remote) publishLines(cmd *cobra.Command, at *place, what *publication) error {
	p := &pipeline{at: at, what: what, window: make(chan int, windowLines), failed: make(chan struct{}), broken: make(chan struct{})}
	if err := p.dial(cmd.Context()); err != nil {
		return err
	}
	defer p.conn.Close()
	lines, done := make(chan line, linesAhead), make(chan struct{})
	defer close(done)
	go readLines(cmd.InOrStdin(), lines, done)
	go p.receive()
	err := p.conclude(p.send(cmd.Context(), lines))
	switch {
	case r.asJSON:
		fmt.Fprintf(cmd.OutOrStdout(), `{"published":%d`, p.published)
		if what.count {
			fmt.Fprintf(cmd.OutOrStdout(), `,"recipients":%d`, p.recipients)
		}
		fmt.Fprintln(cmd.OutOrStdout(), "}")
	case what.count:
		fmt.Fprintf(cmd.OutOrStdout(), "published %s, queued %s\n", show.Things(p.published, "line"), show.Things(p.recipients, "time"))
	}
	if p.delayed {
		sayDelayed(cmd)
	}
	return cmp.Or(err, p.absent.err())
}

// dial opens the socket.
func (p *pipeline) dial(ctx context.Context) error {
	target := *p.at.base
	target.Scheme = map[string]string{"http": "ws", "https": "wss"}[target.Scheme]
	var refused error
	d := ws.Dialer{Timeout: callWait, Header: ws.HandshakeHeaderHTTP(p.at.header()), OnStatusError: func(_ int, _ []byte, raw io.Reader) {
		response, err := http.ReadResponse(bufio.NewReader(raw), nil)
		if err != nil {
			return
		}
		defer response.Body.Close()
		_, refused = p.at.read(ctx, response)
	}}
	conn, in, _, err := d.Dial(ctx, target.JoinPath("v1", "socket").String())
	switch {
	case refused != nil:
		return refused
	case errors.As(err, new(ws.StatusError)):
		return p.at.stranger("it answers without a WebSocket (%v)", err)
	case err != nil:
		return p.at.unanswered(ctx, &url.Error{Op: "dial", URL: target.String(), Err: err})
	}
	if in == nil {
		in = bufio.NewReader(conn)
	}
	p.conn, p.in, p.out = conn, in, bufio.NewWriter(timed{conn})
	return nil
}

// timed bounds each write.
type timed struct{ net.Conn }

func (t timed) Write(b []byte) (int, error) {
	t.SetWriteDeadline(time.Now().Add(callWait))
	return t.Conn.Write(b)
}

// readLines reads lines until the input ends or a line cannot be taken. It does not skip one.
func readLines(from io.Reader, to chan<- line, done <-chan struct{}) {
	defer close(to)
	in := bufio.NewReaderSize(from, 64<<10)
	for n := 1; ; n++ {
		text, err := readLine(in)
		ended := errors.Is(err, io.EOF)
		if ended {
			err = nil
		}
		if text = bytes.TrimSpace(text); len(text) > 0 || err != nil {
			select {
			case to <- line{n, text, err}:
			case <-done:
				return
			}
		}
		if ended || err != nil {
			return
		}
	}
}

func readLine(in *bufio.Reader) (text []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case len(text) > lineBytesMax:
			return nil, fmt.Errorf("it has more than %d bytes", lineBytesMax)
		case !errors.Is(err, bufio.ErrBufferFull):
			return text, err
		}
	}
}

// send sends lines until they end, one fails, or ctx is done. Its error is the operator's, not the server's.
func (p *pipeline) send(ctx context.Context, lines <-chan line) error {
	for {
		var one line
		ok := false
		select {
		case one, ok = <-lines:
		default: // what was written waits no longer than for lines that are there
			if p.flush() != nil {
				return errSocket
			}
			select {
			case one, ok = <-lines:
			case <-p.failed:
			case <-p.broken:
				return errSocket
			case <-ctx.Done():
				return Error{Failed, errors.New("interrupted")}
			}
		}
		if !ok {
			return nil
		}
		if one.err == nil {
			one.err = checkJSON(one.text)
		}
		if one.err != nil {
			return Error{Usage, fmt.Errorf("line %d: %w", one.number, one.err)}
		}
		select {
		case <-p.failed:
			return nil
		default:
		}
		if !p.enter(one.number) || p.write(one) != nil {
			return errSocket
		}
	}
}

// errSocket says that the socket has ended; the receiver knows why.
var errSocket = errors.New("the socket has ended")

// enter takes a place in the window for a line; 0 is no line. It reports false if the socket has ended, or gave no answer in time.
func (p *pipeline) enter(number int) bool {
	select {
	case p.window <- number:
		return true
	default:
	}
	if p.flush() != nil {
		return false
	}
	late := time.NewTimer(callWait)
	defer late.Stop()
	select {
	case p.window <- number:
		return true
	case <-p.broken:
	case <-late.C:
	}
	return false
}

// write queues a line for the socket.
func (p *pipeline) write(one line) error {
	body := p.what.add(object(nil).text("do", "publish").number("ref", int64(one.number)), one.text).end()
	p.mu.Lock()
	defer p.mu.Unlock()
	return ws.WriteFrame(p.out, ws.MaskFrameInPlace(ws.NewTextFrame(body)))
}

func (p *pipeline) flush() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Flush()
}

// control sends a control frame. Both goroutines may call it.
func (p *pipeline) control(f ws.Frame) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(ws.WriteFrame(p.out, ws.MaskFrameInPlace(f)), p.out.Flush())
}

// receive takes answers until the socket ends.
func (p *pipeline) receive() {
	defer close(p.broken)
	for {
		p.conn.SetReadDeadline(time.Now().Add(socketSilence))
		h, err := ws.ReadHeader(p.in)
		if err == nil && h.Length > reportMax {
			err = fmt.Errorf("an answer has %d bytes", h.Length)
		}
		var text []byte
		if err == nil {
			text = make([]byte, h.Length)
			_, err = io.ReadFull(p.in, text)
		}
		switch {
		case err != nil:
		case h.OpCode == ws.OpPing:
			err = p.control(ws.NewPongFrame(text))
		case h.OpCode == ws.OpClose:
			code, reason := ws.ParseCloseFrameData(text)
			err = closed{code, reason}
		case h.OpCode == ws.OpText:
			err = p.answered(text)
		}
		if err != nil {
			p.end = err
			return
		}
	}
}

// closed is how the server closed the socket.
type closed struct {
	code   ws.StatusCode
	reason string
}

func (c closed) Error() string {
	return fmt.Sprintf("the server closed the socket: %d %s", c.code, show.Printable(c.reason))
}

// answered takes the answer to the oldest line under way.
func (p *pipeline) answered(text []byte) error {
	var answer struct {
		Ref     int      `json:"ref"`
		Result  *outcome `json:"result"`
		Problem *refusal `json:"problem"`
	}
	number := 0
	select {
	case number = <-p.window:
	default:
		return errors.New("an answer came without a question")
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Ref != number || (answer.Result == nil) == (answer.Problem == nil) {
		return fmt.Errorf("the answer to line %d is malformed", number)
	}
	switch {
	case answer.Problem == nil:
		p.published++
		p.recipients += answer.Result.Recipients
		p.delayed = p.delayed || answer.Result.Delayed
		p.absent.add(answer.Result.missing)
		if p.failure != nil {
			p.behind++
		}
	case p.failure == nil:
		p.failure = fmt.Errorf("line %d: %w", number, answer.Problem.failure(p.at))
		close(p.failed)
	}
	return nil
}

// conclude waits for the answers to all lines that were sent, and says what became of them.
func (p *pipeline) conclude(stopped error) error {
	p.finish()
	so := show.Things(p.published, "line") + " published"
	first := p.oldest()
	switch {
	case p.failure != nil:
		return fmt.Errorf("%w; %s, %d of them after that line, because they were sent before its answer came", p.failure, so, p.behind)
	case first > 0 || stopped == errSocket:
		return p.cut(first, so)
	case stopped != nil:
		return fmt.Errorf("%w; %s", stopped, so)
	}
	return nil
}

// finish fills the window, which means that no line is under way, closes the socket and waits for its end.
func (p *pipeline) finish() {
	for range cap(p.window) {
		if !p.enter(0) {
			break
		}
	}
	p.control(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))
	defer time.AfterFunc(dialWait, func() { p.conn.Close() }).Stop()
	<-p.broken
}

// oldest is the number of the first line without an answer; 0 if all have one.
func (p *pipeline) oldest() int {
	for {
		select {
		case number := <-p.window:
			if number > 0 {
				return number
			}
		default:
			return 0
		}
	}
}

// cut says what is known if the socket has ended too early.
func (p *pipeline) cut(first int, so string) error {
	if first == 0 {
		return Error{Unreachable, fmt.Errorf("%w; %s", p.end, so)}
	}
	code := Unreachable
	if end, ok := errors.AsType[closed](p.end); ok && (end.code == ws.StatusMessageTooBig || end.code == ws.StatusPolicyViolation) {
		code = Refused
	}
	return Error{code, fmt.Errorf("line %d: no answer: %w; %s; it is not known whether this line and later ones were published", first, p.end, so)}
}
