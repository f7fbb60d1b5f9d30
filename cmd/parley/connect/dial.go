package connect

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/cmd/parley/client"
)

const refusalBytesMax = 400 // of the text with which a server refuses a handshake

// refused is a handshake that the server refuses with an HTTP status.
//
// Owner: immutable.
type refused struct {
	status int
	text   string
	after  time.Duration // of Retry-After; 0 if there is none
}

func (r *refused) Error() string {
	text := strings.TrimSpace(strconv.Itoa(r.status) + " " + http.StatusText(r.status))
	if r.text != "" {
		text += ": " + r.text
	}
	return text
}

// readRefusal reads an answer that is no 101.
func readRefusal(status int, answer io.Reader) *refused {
	r := &refused{status: status}
	response, err := http.ReadResponse(bufio.NewReader(answer), nil)
	if err != nil {
		return r
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, refusalBytesMax)) // what there is of it
	text, _, _ := strings.Cut(strings.TrimSpace(string(body)), "\n")
	if !strings.HasPrefix(text, "<") { // a page of a proxy
		r.text = escaped(strings.TrimSpace(text))
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		r.after = time.Duration(min(seconds, 3600)) * time.Second
	}
	return r
}

// dial opens a connection. Its error is a [client.Error].
func (c *conversation) dial(ctx context.Context) (*link, error) {
	token, err := c.o.Token()
	switch {
	case err != nil && c.greeted: // the file may be there again at the next attempt
		return nil, client.Error{Code: client.Failed, Err: err}
	case err != nil:
		return nil, client.Error{Code: client.Usage, Err: err}
	}
	c.shown = token
	var refusal *refused
	d := ws.Dialer{Timeout: c.limits.Handshake, Header: ws.HandshakeHeaderHTTP(c.fields(token)), OnStatusError: func(status int, _ []byte, answer io.Reader) {
		refusal = readRefusal(status, answer)
	}}
	conn, in, _, err := d.Dial(ctx, c.o.URL.String())
	switch {
	case refusal != nil:
		return nil, c.refusal(refusal)
	case err != nil:
		return nil, client.Error{Code: client.Unreachable, Err: c.unreachable(err)}
	}
	if in == nil {
		in = bufio.NewReader(conn)
	}
	return newLink(conn, in, c.limits.Write), nil
}

// fields are the header fields of the handshake beyond those of every handshake.
func (c *conversation) fields(token string) http.Header {
	h := c.o.Header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if c.o.Origin != "" {
		h.Set("Origin", c.o.Origin)
	}
	if token != "" {
		h.Set("Authorization", "Bearer "+token)
	}
	return h
}

// address is the URL without its query, which may hold a token.
func (c *conversation) address() string {
	shown := url.URL{Scheme: c.o.URL.Scheme, Host: c.o.URL.Host, Path: c.o.URL.Path}
	return escaped(shown.String())
}

// refusal says why a handshake was refused, and what to do about it.
func (c *conversation) refusal(r *refused) error {
	c.retry.goodbye(r.after, time.Now())
	switch {
	case r.status >= 500:
		return client.Error{Code: client.Failed, Err: fmt.Errorf("%s is there, and takes no connection now (%w): try again later", c.address(), r)}
	case r.status == http.StatusForbidden && c.o.Origin != "":
		return client.Error{Code: client.Refused, Err: fmt.Errorf("%s refuses the handshake (%w): is the origin %s in the server's setting origins?", c.address(), r, escaped(c.o.Origin))}
	case r.status >= 400 && r.status != http.StatusNotFound && r.status != http.StatusMethodNotAllowed && r.status != http.StatusUpgradeRequired:
		return client.Error{Code: client.Refused, Err: fmt.Errorf("%s refuses the handshake (%w)", c.address(), r)}
	}
	return client.Error{Code: client.Unreachable, Err: fmt.Errorf("on %s is no WebSocket server: it answers %w", c.address(), r)}
}

// unreachable says why there is no connection.
func (c *conversation) unreachable(err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var plain tls.RecordHeaderError
	switch op, isOp := errors.AsType[*net.OpError](err); {
	case errors.As(err, &plain):
		return fmt.Errorf("%s speaks no TLS: write ws:// instead of wss://", c.address())
	case errors.As(err, &unknown), errors.As(err, &name), errors.As(err, new(*tls.CertificateVerificationError)):
		return fmt.Errorf("the certificate of %s is not accepted: %w", c.address(), err)
	case isOp && op.Op == "dial":
		return fmt.Errorf("no server answers on %s (%w): is it running?", c.address(), err)
	case errors.Is(err, context.DeadlineExceeded), timedOut(err):
		return fmt.Errorf("%s does not answer the handshake within %v: is it a WebSocket server?", c.address(), c.limits.Handshake)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isOp:
		return fmt.Errorf("%s ends the connection without an answer to the handshake: is it a WebSocket server?", c.address())
	}
	return fmt.Errorf("on %s is no WebSocket server: %s", c.address(), escaped(err.Error()))
}

func timedOut(err error) bool {
	asked, ok := errors.AsType[net.Error](err)
	return ok && asked.Timeout()
}
