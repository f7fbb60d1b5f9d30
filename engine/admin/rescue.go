package admin

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
)

// A panic behind a page costs its request only: the answer is 500, and the log has an error with the stack. net/http alone
// would log it at the debug level, and metrics are collected on other goroutines, where a panic would end the process.

func logPanic(log *slog.Logger, where string, v any) {
	log.Error("the server's own code panicked; please report this", "where", where, "panic", v, "stack", string(debug.Stack()))
}

// rescuing answers 500 if next panics before it has answered.
func rescuing(next http.Handler, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v) // net/http's own way to break an answer off
			default:
				logPanic(log, "admin page "+r.URL.Path, v)
				http.Error(w, "the server failed to answer; its log says why", http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// rescued is a collector whose panic is an invalid metric, which /metrics answers with 500.
type rescued struct {
	prometheus.Collector
	log *slog.Logger
}

func (c rescued) Collect(out chan<- prometheus.Metric) {
	defer func() {
		if v := recover(); v != nil {
			logPanic(c.log, "metrics", v)
			err := fmt.Errorf("collecting panicked: %v", v)
			out <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		}
	}()
	c.Collector.Collect(out)
}
