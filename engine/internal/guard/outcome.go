package guard

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/parleyd/parley/engine/internal/pending"
	"github.com/parleyd/parley/engine/internal/turn"
	"github.com/parleyd/parley/protocol/frame"
	"github.com/parleyd/parley/protocol/message"
)

// A handler's result is checked on the goroutine of the handler, under the same guard: the methods of its error and of its
// reply are code of the application, too. The loop gets an outcome that is ready for the wire.

// Outcome is the result of a handler, ready for the wire.
//
// Owner: the handler's goroutine; once posted, the loop.
type Outcome struct {
	Reply    []byte         // encoded; nil for none
	Refusal  *message.Error // sent to the client instead
	Failed   error          // for the log and the listeners
	Panicked bool
}

// ErrHandled is the result of a handler that has answered already.
var ErrHandled = errors.New("answered already")

// Handler runs the handler of a message for c, and checks its result. keeps says that the loop reads the reply later, when the
// handler may write to its bytes again.
func (s *Guard) Handler(name string, c *pending.Conn, keeps bool, f func() (any, error)) (out Outcome) {
	err := s.Run(name, c, func() error {
		reply, err := f()
		out = judge(reply, err)
		if _, lent := reply.([]byte); lent && keeps {
			out.Reply = bytes.Clone(out.Reply)
		}
		return nil
	})
	if err != nil {
		return Outcome{Panicked: true}
	}
	return out
}

func judge(reply any, err error) Outcome {
	switch {
	case message.IsNone(err) && message.IsNone(reply):
		return Outcome{}
	case message.IsNone(err):
		return encodeReply(reply)
	case errors.Is(err, ErrHandled):
		return Outcome{}
	}
	if e := message.Coded(err); e != nil {
		return Outcome{Refusal: e}
	}
	return Outcome{Refusal: message.CodedOr(message.Internal, err), Failed: err}
}

func encodeReply(reply any) Outcome {
	raw, ok := reply.([]byte)
	var err error
	switch {
	case !ok:
		raw, err = message.Encode(nil, reply)
	case !frame.ValidUTF8(raw):
		err = turn.ErrInvalidUTF8
	}
	if err != nil {
		return Outcome{Refusal: message.ErrorOf(message.Internal), Failed: fmt.Errorf("encode reply: %w", err)}
	}
	return Outcome{Reply: raw}
}

// Auth runs an auth handler for c; the zero outcome admits.
func (s *Guard) Auth(c *pending.Conn, f func() error) (out Outcome) {
	err := s.Run("auth", c, func() error {
		if err := f(); !message.IsNone(err) {
			out.Refusal = message.CodedOr(message.Unauthorized, err)
		}
		return nil
	})
	if err != nil {
		return Outcome{Panicked: true}
	}
	return out
}
