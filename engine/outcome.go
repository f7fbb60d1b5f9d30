package engine

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"

	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/message"
)

// A handler's result is checked on the goroutine of the handler, under the same guard: the methods of its error and of its
// reply are code of the application, too. The loop gets an outcome that is ready for the wire.

// outcome is the result of a handler, ready for the wire.
//
// Owner: the handler's goroutine; once posted, the loop.
type outcome struct {
	reply    []byte // encoded; nil for none
	refusal  *Error // sent to the client instead
	failed   error  // for the log and the listeners
	panicked bool
}

// run runs the handler of a message and checks its result. m is borrowed.
func (s *Server) run(c *Conn, r *route, m *Message) (out outcome) {
	err := s.guard(r.name, c, func() error {
		reply, err := r.handler(c, m, s)
		out = judge(reply, err)
		if _, lent := reply.([]byte); lent && r.offload {
			out.reply = bytes.Clone(out.reply) // the loop reads it later, and the handler may write to its bytes again
		}
		return nil
	})
	if err != nil {
		return outcome{panicked: true}
	}
	return out
}

func judge(reply any, err error) outcome {
	switch {
	case isNil(err) && isNil(reply):
		return outcome{}
	case isNil(err):
		return encodeReply(reply)
	case errors.Is(err, errHandled):
		return outcome{}
	}
	if e := coded(err); e != nil {
		return outcome{refusal: e}
	}
	return outcome{refusal: &Error{Code: message.Internal.String(), Message: err.Error()}, failed: err}
}

func encodeReply(reply any) outcome {
	raw, ok := reply.([]byte)
	var err error
	switch {
	case !ok:
		raw, err = message.Encode(nil, reply)
	case !frame.ValidUTF8(raw):
		err = ErrInvalidUTF8
	}
	if err != nil {
		return outcome{refusal: wireError(message.Internal), failed: fmt.Errorf("encode reply: %w", err)}
	}
	return outcome{reply: raw}
}

// coded is the refusal in an error, however often it was wrapped; nil if there is none.
func coded(err error) *Error {
	e, _ := errors.AsType[*Error](err)
	return e
}

// isNil reports whether an error or a reply means none. So does a nil pointer in an interface: a function with a result of
// its own type returns one.
func isNil(v any) bool {
	if v == nil {
		return true
	}
	switch x := reflect.ValueOf(v); x.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Slice, reflect.Func, reflect.Chan:
		return x.IsNil()
	}
	return false
}

// runConnect runs the connect handlers; nil admits.
func (s *Server) runConnect(c *Conn, handlers []ConnectHandler, r *Request) (refusal *Refusal) {
	err := s.guard("connect", c, func() error {
		for _, h := range handlers {
			if err := h(c, r); !isNil(err) {
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

// runAuth runs the auth handler; the zero outcome admits.
func (s *Server) runAuth(c *Conn, h AuthHandler, token string) (out outcome) {
	err := s.guard("auth", c, func() error {
		err := h(c, token)
		if isNil(err) {
			return nil
		}
		out.refusal = coded(err)
		if out.refusal == nil {
			out.refusal = &Error{Code: message.Unauthorized.String(), Message: err.Error()}
		}
		return nil
	})
	if err != nil {
		return outcome{panicked: true}
	}
	return out
}
