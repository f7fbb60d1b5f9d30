// Package caller sends the requests of verify's backends to the HTTP API, and signs the tokens of its clients.
//
// What it refuses to do: judge answers, and send a request again.
//
// Start reading at [Target.Run].
package caller

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

// Exchange is one request to the HTTP API and its answer.
//
// Owner: the caller of [Target.Dial]'s channel, or the line while it carries it out.
type Exchange struct {
	Path  string
	Body  []byte        // nil: a GET
	Key   string        // Idempotency-Key; empty: none
	Leave time.Duration // the line is cut if no answer has come after it; 0: it waits

	Status int
	Replay bool
	Text   []byte
	Err    error // no answer came
}

// ErrLeft is the error of a request whose connection the checker cut.
var ErrLeft = errors.New("the checker cut the connection")

// patience is how long a line waits for an answer on an idle machine. Requests that ask workers take five seconds at most.
const patience = 20 * time.Second

// line is one backend's connection to the API. net/http's client is of no use here: it sends a request with an
// Idempotency-Key again by itself.
//
// Owner: the goroutine that runs it.
type line struct {
	at   *Target
	conn net.Conn
	in   *bufio.Reader
}

// Run carries out what comes on asks, on one connection at a time, and calls done after each list, until asks is closed. The
// requests of a list are sent at once, without waiting for answers. The end of ctx breaks off. One goroutine.
func (t *Target) Run(ctx context.Context, asks <-chan []*Exchange, done func()) {
	l := &line{at: t}
	for list := range asks {
		l.carryOut(ctx, list)
		done()
	}
	l.hangUp()
}

// carryOut sends all requests at once, and reads their answers.
func (l *line) carryOut(ctx context.Context, list []*Exchange) {
	err := l.dial(ctx)
	stop := func() bool { return true }
	if err == nil {
		conn := l.conn
		stop = context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
		conn.SetWriteDeadline(time.Now().Add(canary.Stretch(patience)))
		_, err = conn.Write(l.at.write(list))
	}
	for _, x := range list {
		x.Status, x.Replay, x.Text, x.Err = 0, false, nil, err
		if err == nil {
			x.Err = l.read(x)
			err = x.Err
		}
	}
	if !stop() || err != nil {
		l.hangUp()
	}
}

func (l *line) dial(ctx context.Context) (err error) {
	if l.conn != nil {
		return nil
	}
	d := net.Dialer{Timeout: canary.Stretch(patience)}
	if l.conn, err = d.DialContext(ctx, "tcp", l.at.addr); err != nil {
		l.conn = nil
		return fmt.Errorf("connect to the API: %w", err)
	}
	l.in = bufio.NewReader(l.conn)
	return nil
}

// write is the text of requests.
func (t *Target) write(list []*Exchange) []byte {
	var b bytes.Buffer
	for _, x := range list {
		method := http.MethodGet
		if x.Body != nil {
			method = http.MethodPost
		}
		fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n", method, x.Path, t.addr, t.key)
		if x.Key != "" {
			fmt.Fprintf(&b, "Idempotency-Key: %s\r\n", x.Key)
		}
		if x.Body != nil {
			fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(x.Body))
		}
		b.WriteString("\r\n")
		b.Write(x.Body)
	}
	return b.Bytes()
}

// read reads an answer.
func (l *line) read(x *Exchange) error {
	wait := canary.Stretch(patience)
	if x.Leave > 0 {
		wait = x.Leave
	}
	l.conn.SetReadDeadline(time.Now().Add(wait))
	got, err := http.ReadResponse(l.in, nil)
	if err == nil {
		x.Text, err = io.ReadAll(got.Body)
		got.Body.Close()
	}
	if timeout, is := errors.AsType[net.Error](err); x.Leave > 0 && is && timeout.Timeout() {
		return ErrLeft
	}
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	x.Status, x.Replay = got.StatusCode, got.Header.Get("Idempotent-Replay") == "true"
	return nil
}

func (l *line) hangUp() {
	if l.conn != nil {
		l.conn.Close()
		l.conn, l.in = nil, nil
	}
}
