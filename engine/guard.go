package engine

import (
	"runtime/debug"
	"time"
)

// guard runs code of the application. A panic in it becomes an error, is counted and logged: it costs one
// connection, not the process. This and guardRaw are the only places with a recover.
func (s *Server) guard(name string, c *Conn, f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = s.caught(name, c, v)
		}
	}()
	return f()
}

// guardRaw is guard for raw handlers, which are too frequent for a closure.
func (l *loop) guardRaw(c *Conn, handler RawHandler, binary bool, payload []byte) (reply []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = l.srv.caught("raw", c, v)
		}
	}()
	return handler(c, payload, binary), nil
}

func (s *Server) caught(name string, c *Conn, value any) error {
	s.count.panics.Add(1)
	p := &panicError{value: value, stack: debug.Stack()}
	id := ""
	if c != nil {
		id = c.ID()
	}
	s.log.Error("a handler panicked", "handler", name, "conn", id, "panic", value, "stack", string(p.stack))
	return p
}

// handlerSlow is how long a handler may hold its loop before it is counted and logged.
const handlerSlow = 50 * time.Millisecond

func duration(ns int64) time.Duration { return time.Duration(ns) }
