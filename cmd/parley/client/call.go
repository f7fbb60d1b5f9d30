package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/cmd/parley/show"
)

const (
	dialWait       = 5 * time.Second
	callWait       = 30 * time.Second // for a whole answer; the server itself waits 5 s for its workers
	answerBytesMax = 256 << 20        // 1,000 connections with all attributes that they may have
	pageRows       = 1000
)

// caller sends the requests of a command over one connection, where it can. A redirect is not followed: it would take the key
// to another server.
var caller = &http.Client{
	Timeout:       callWait,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: dialWait}).DialContext, TLSHandshakeTimeout: dialWait},
}

// refusal is a problem document of the API [RFC 9457].
//
// Owner: immutable.
type refusal struct {
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Title   string `json:"title"`
	Detail  string `json:"detail"`
	Request string `json:"request"`
}

func (r *refusal) Error() string {
	text := r.Code + ": " + r.Title
	if r.Detail != "" {
		text = r.Code + ": " + r.Detail
	}
	if r.Request != "" {
		text += " (request " + r.Request + ")"
	}
	return show.Printable(text)
}

// failure is the error that ends a command with the code that a problem calls for: the server refuses a request, or it failed and
// may do better at another try.
func (r *refusal) failure(at *place) error {
	switch {
	case r.Status >= 500:
		return Error{Failed, r}
	case r.Status == http.StatusUnauthorized:
		return Error{Refused, fmt.Errorf("%w; %s", r, at.from)}
	}
	return Error{Refused, r}
}

// get reads from the API.
func (at *place) get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	return at.call(ctx, path+"?"+query.Encode(), nil)
}

// post changes something.
func (at *place) post(ctx context.Context, path string, body []byte) ([]byte, error) {
	return at.call(ctx, path, body)
}

// call sends a request, and returns the JSON of the answer.
func (at *place) call(ctx context.Context, target string, body []byte) ([]byte, error) {
	method, content := http.MethodGet, io.Reader(nil)
	if body != nil {
		method, content = http.MethodPost, bytes.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(at.base.String(), "/")+strings.TrimSuffix(target, "?"), content)
	if err != nil {
		return nil, Error{Usage, err}
	}
	r.Header = at.header()
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := caller.Do(r)
	if err != nil {
		return nil, at.unanswered(ctx, err)
	}
	defer response.Body.Close()
	return at.read(ctx, response)
}

func (at *place) header() http.Header {
	h := http.Header{}
	if at.key != "" {
		h.Set("Authorization", "Bearer "+at.key)
	}
	return h
}

// unanswered says that a request has no answer.
func (at *place) unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return Error{Failed, errors.New("interrupted: the server may have done what was asked")}
	}
	if asked, ok := errors.AsType[*url.Error](err); ok {
		err = asked.Err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return Error{Unreachable, fmt.Errorf("no server answers on %s (%w): is it running? If its HTTP API is elsewhere, give the address: --url http://host:port", at.base, err)}
	}
	return Error{Unreachable, fmt.Errorf("no answer from %s (%w): the server may have done what was asked", at.base, err)}
}

// read judges an answer. All answers of the API have the field Parley-Request.
func (at *place) read(ctx context.Context, r *http.Response) ([]byte, error) {
	if to := r.Header.Get("Location"); r.StatusCode/100 == 3 {
		return nil, at.stranger("it redirects to %q: give the address at which the API itself is", to)
	}
	if r.Header.Get("Parley-Request") == "" {
		return nil, at.stranger("it answers %q with %q: is it a proxy, or another server?", r.Status, r.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, answerBytesMax+1))
	switch {
	case err != nil:
		return nil, at.unanswered(ctx, err)
	case len(body) > answerBytesMax:
		return nil, at.stranger("its answer has more than %d bytes", answerBytesMax)
	case r.StatusCode/100 == 2 && json.Valid(body):
		return body, nil
	}
	var problem refusal
	if json.Unmarshal(body, &problem) != nil || problem.Code == "" {
		return nil, at.stranger("it answers %q without a problem document", r.Status)
	}
	return nil, problem.failure(at)
}

// stranger says that what answers is not the API.
func (at *place) stranger(format string, args ...any) error {
	return Error{Unreachable, fmt.Errorf("what answers on %s is not the HTTP API of Parley: "+format, append([]any{at.base}, args...)...)}
}

// missing are the workers that did not answer in time.
type missing struct {
	Partial []worker `json:"partial"`
}

// worker is one start of a worker.
type worker struct {
	Instance int `json:"instance"`
}

func (m *missing) add(more missing) {
	for _, w := range more.Partial {
		if !slices.Contains(m.Partial, w) {
			m.Partial = append(m.Partial, w)
		}
	}
}

// err is nil if none is missing.
func (m *missing) err() error {
	if len(m.Partial) == 0 {
		return nil
	}
	var names []string
	for _, w := range m.Partial {
		names = append(names, strconv.Itoa(w.Instance))
	}
	return Error{Failed, fmt.Errorf("the answer is not complete, because workers did not answer in time (instance %s); ask again", strings.Join(names, ", "))}
}

// pages reads a list page by page, at most limit rows; 0 means all. The last error says that the list is not complete.
func (at *place) pages(ctx context.Context, target string, query url.Values, limit int) iter.Seq2[[]json.RawMessage, error] {
	return func(yield func([]json.RawMessage, error) bool) {
		var absent missing
		for left := limit; ; {
			n := pageRows
			if limit > 0 {
				n = min(n, left)
			}
			query.Set("limit", strconv.Itoa(n))
			rows, next, err := at.page(ctx, target, query, &absent)
			if left -= len(rows); !yield(rows, err) || err != nil {
				return
			}
			if next == "" || limit > 0 && left <= 0 {
				break
			}
			query.Set("after", next)
		}
		if err := absent.err(); err != nil {
			yield(nil, err)
		}
	}
}

// page reads a page, and adds the workers that are missing in it to absent. The last part of the path names the rows.
func (at *place) page(ctx context.Context, target string, query url.Values, absent *missing) (rows []json.RawMessage, next string, err error) {
	body, err := at.get(ctx, target, query)
	if err != nil {
		return nil, "", err
	}
	var page map[string]json.RawMessage
	var rest struct {
		missing
		Next string `json:"next"`
	}
	err = json.Unmarshal(body, &page)
	if err == nil {
		err = json.Unmarshal(page[path.Base(target)], &rows)
	}
	if err == nil {
		err = json.Unmarshal(body, &rest)
	}
	if err != nil {
		return nil, "", at.stranger("its list is malformed: %v", err)
	}
	absent.add(rest.missing)
	return rows, rest.Next, nil
}

// namedUsers asks for users by their names, as many in a request as the API takes.
func (at *place) namedUsers(ctx context.Context, all []string) iter.Seq2[[]json.RawMessage, error] {
	return func(yield func([]json.RawMessage, error) bool) {
		var absent missing
		for some := range slices.Chunk(all, usersNamedMax) {
			if rows, _, err := at.page(ctx, "/v1/users", url.Values{"user": some}, &absent); !yield(rows, err) || err != nil {
				return
			}
		}
		if err := absent.err(); err != nil {
			yield(nil, err)
		}
	}
}
