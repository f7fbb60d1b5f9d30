package engine

import (
	"errors"
	"fmt"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/message"
)

// A Refusal is the error with which a connect handler refuses a request: before the upgrade with an HTTP status, or after it
// with a close code that the page can read.
type Refusal struct {
	Status int           // an HTTP status, 400 to 599
	Code   ws.StatusCode // or a close code
	Reason string        // for the body, or the close frame (at most 123 bytes)
}

func (r *Refusal) Error() string {
	if r == nil {
		return "not refused" // a nil pointer in a chain of errors
	}
	return fmt.Sprintf("refused (%d): %s", max(r.Status, int(r.Code)), r.Reason)
}

// RefuseStatus refuses a request before the upgrade, with an HTTP status of 400 to 599.
func RefuseStatus(status int, reason string) error { return &Refusal{Status: status, Reason: reason} }

// Refuse lets the upgrade take place and closes at once, so that the close code arrives: browsers do not show an HTTP status
// to the page. Codes and reasons are as for [Conn.CloseWith].
func Refuse(code ws.StatusCode, reason string) error { return &Refusal{Code: code, Reason: reason} }

// runConnect runs the connect handlers; nil admits.
func (s *Server) runConnect(c *Conn, handlers []ConnectHandler, r *Request) (refusal *Refusal) {
	err := s.guard.Run("connect", c.pending(), func() error {
		for _, h := range handlers {
			if err := h(c, r); !message.IsNone(err) {
				refusal = asRefusal(err)
				return nil
			}
		}
		return nil
	})
	if err != nil {
		return refusalPanicked
	}
	return refusal
}

var refusalPanicked = &Refusal{Status: turn.RefusalFailed.Status, Reason: turn.RefusalFailed.Reason}

// asRefusal turns a connect handler's error into a refusal.
func asRefusal(err error) *Refusal {
	r, _ := errors.AsType[*Refusal](err)
	switch {
	case r == nil:
		return &Refusal{Status: 401, Reason: err.Error()}
	case r.Status >= 400 && r.Status <= 599 || r.Code != 0:
		return r
	}
	return &Refusal{Status: 403, Reason: r.Reason}
}
