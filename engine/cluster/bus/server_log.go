package bus

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// serverLog passes the embedded server's log lines on. Notices are for debugging, except those about slow workers. A
// fatal error does not end the process; it is the server's report that it cannot start.
type serverLog struct {
	log    *slog.Logger
	fatal  chan string
	broken chan struct{} // the files could not be written
}

func newServerLog(log *slog.Logger) *serverLog {
	return &serverLog{log: log, fatal: make(chan string, 1), broken: make(chan struct{}, 1)}
}

// Noticef logs a notice for debugging, and a slow consumer as a warning.
func (l *serverLog) Noticef(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	if strings.Contains(text, "Slow Consumer") {
		l.log.Warn("the bus disconnects a worker that does not read", "nats", text)
		return
	}
	l.log.Debug("bus", "nats", text)
}

// Warnf logs a warning.
func (l *serverLog) Warnf(format string, v ...any) {
	l.log.Warn("bus", "nats", fmt.Sprintf(format, v...))
}

// Errorf logs an error.
func (l *serverLog) Errorf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error("bus", "nats", text)
	if strings.Contains(text, "ritical write error") {
		select {
		case l.broken <- struct{}{}:
		default:
		}
	}
}

// Fatalf keeps the first fatal error for Start.
func (l *serverLog) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.log.Error("bus", "nats", text)
	select {
	case l.fatal <- text:
	default:
	}
}

// Debugf logs nothing.
func (l *serverLog) Debugf(string, ...any) {}

// Tracef logs nothing.
func (l *serverLog) Tracef(string, ...any) {}

var errAddressInUse = errors.New("address already in use")

// startError makes an error of a fatal log line.
func startError(why string) error {
	if strings.Contains(why, errAddressInUse.Error()) {
		return fmt.Errorf("%w: %s", errAddressInUse, why)
	}
	return errors.New(why)
}
