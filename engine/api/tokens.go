package api

import (
	"context"
	"encoding/base64"
	"errors"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
)

// tokensRequest is the body of /v1/tokens/revoke and /v1/tokens/unrevoke: the tokens of a user, or the token with a jti.
//
// Owner: one goroutine.
type tokensRequest struct {
	user, jti     string
	before, until time.Time // zero: not given
}

// seconds makes a field of a time in seconds.
func seconds(name string, into func(r *tokensRequest) *time.Time) field[tokensRequest] {
	return field[tokensRequest]{name, func(r *tokensRequest, v []byte) string {
		n, err := strconv.ParseInt(string(v), 10, 64)
		if err != nil || n < 0 {
			return "give seconds since 1970, as a number"
		}
		*into(r) = time.Unix(n, 0)
		return ""
	}}
}

// subject makes a field that names whose tokens, or which token, the request is about.
func subject(name string, into func(r *tokensRequest) *string) field[tokensRequest] {
	return field[tokensRequest]{name, func(r *tokensRequest, v []byte) (wrong string) {
		if wrong = takeText(into(r), v); wrong == "" && *into(r) == "" {
			wrong = "the name has one byte at least"
		}
		return wrong
	}}
}

var (
	ofUser         = subject("user", func(r *tokensRequest) *string { return &r.user })
	ofID           = subject("jti", func(r *tokensRequest) *string { return &r.jti })
	unrevokeFields = fields[tokensRequest]{ofUser, ofID}
	revokeFields   = fields[tokensRequest]{ofUser, ofID,
		seconds("issued_before", func(r *tokensRequest) *time.Time { return &r.before }),
		seconds("until", func(r *tokensRequest) *time.Time { return &r.until })}
)

// decodeTokens reads a body, which names exactly one subject, with its own time only.
func decodeTokens(s *Server, c *call, list fields[tokensRequest]) (r tokensRequest, wrong *problem) {
	if wrong = list.decode(c.object, &r); wrong != nil {
		return r, wrong
	}
	if wrong = s.mayRevoke(c); wrong != nil {
		return r, wrong
	}
	switch {
	case r.user == "" && r.jti == "":
		return r, invalid([]fault{{c.at, "name the tokens: by exactly one of user and jti"}})
	case r.user != "" && r.jti != "":
		return r, invalid([]fault{{c.at + "/jti", "name the tokens once: give user or jti, not both"}})
	case r.user == "" && !r.before.IsZero():
		return r, invalid([]fault{{c.at + "/issued_before", "it stands beside user only"}})
	case r.jti == "" && !r.until.IsZero():
		return r, invalid([]fault{{c.at + "/until", "it stands beside jti only"}})
	}
	return r, nil
}

// mayRevoke refuses a server without tokens, and a key with rooms.
func (s *Server) mayRevoke(c *call) *problem {
	if s.tokens == nil {
		return &problem{code: notFound, detail: "auth is off: no client has a token"}
	}
	return c.key.addressesAll("tokens")
}

// revoke makes tokens good no more, and answers once every worker knows.
func revoke(s *Server, c *call) ([]byte, *problem) {
	r, wrong := decodeTokens(s, c, revokeFields)
	if wrong != nil {
		return nil, wrong
	}
	if r.before.IsZero() {
		r.before = c.now.Add(time.Second) // times of issue are whole seconds: the present one counts
	}
	if r.until.IsZero() {
		r.until = c.now.Add(access.UserKept)
	}
	return s.act(c, "closed", func(ctx context.Context) (n int, err error) {
		if r.user != "" {
			n, err = s.tokens.RevokeUser(ctx, r.user, r.before)
		} else {
			n, err = s.tokens.RevokeID(ctx, r.jti, r.until)
		}
		if errors.Is(err, engine.ErrUnavailable) {
			err = errSpreads
		}
		return n, err
	})
}

// errSpreads says that a change of revocations has not reached all workers. It does not wrap the error of those that did not
// answer: the request must be repeated.
var errSpreads = errors.New("a change of revocations has not reached all workers")

// unrevoke takes a revocation back.
func unrevoke(s *Server, c *call) ([]byte, *problem) {
	r, wrong := decodeTokens(s, c, unrevokeFields)
	if wrong != nil {
		return nil, wrong
	}
	return []byte("{}"), s.ask(c, func(ctx context.Context) (err error) {
		if r.user != "" {
			err = s.tokens.LiftUser(ctx, r.user)
		} else {
			err = s.tokens.LiftID(ctx, r.jti)
		}
		if errors.Is(err, engine.ErrUnavailable) {
			err = errSpreads
		}
		return err
	})
}

// revocationRow is a revocation in an answer.
//
// Owner: one goroutine.
type revocationRow struct {
	User         string `json:"user,omitempty"`
	ID           string `json:"jti,omitempty"`
	IssuedBefore int64  `json:"issued_before,omitempty"`
	Until        int64  `json:"until"`
}

// place orders the rows: users first, each kind by name.
func (r *revocationRow) place() string {
	if r.User != "" {
		return "1" + r.User
	}
	return "2" + r.ID
}

// revocations lists the revocations in force.
func revocations(s *Server, c *call, _ *readRequest) (*list, *problem) {
	if wrong := s.mayRevoke(c); wrong != nil {
		return nil, wrong
	}
	return &list{"revocations", func(_ context.Context, after string, limit int) (p page, err error) {
		last, err := base64.RawURLEncoding.DecodeString(after)
		if err != nil || strings.ContainsAny(after, "\r\n") {
			return p, engine.ErrCursor
		}
		all := s.tokens.Revocations()
		rows := make([]revocationRow, len(all))
		for i, one := range all {
			rows[i] = revocationRow(one)
		}
		rows = rows[sort.Search(len(rows), func(i int) bool { return rows[i].place() > string(last) }):]
		if len(rows) > limit {
			rows = rows[:limit]
			p.next = base64.RawURLEncoding.EncodeToString([]byte(rows[limit-1].place()))
		}
		p.rows = rowsOf(rows)
		return p, nil
	}}, nil
}
