package admin

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/parleyd/parley/engine"
)

// still is a world whose loops take turns when the test says so.
type still struct{ now time.Duration }

func (w *still) Now() time.Duration                  { return w.now }
func (*still) Entropy([]byte)                        {}
func (*still) Write(_ int, p []byte) (n int, _ bool) { return len(p), true }
func (*still) Shutdown(int)                          {}
func (*still) Drop(int)                              {}
func (*still) Watch(int)                             {}
func (*still) Ring(int)                              {}

// A loop that takes no turn makes health 503 after 2 seconds, and 200 again once it does. The two seconds are those of a
// clock that stands still while a goroutine of the test can go on.
func TestHealthOfAHeldLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, err := engine.NewLockstep(engine.Config{Loops: 2}, new(still), engine.WithLogger(slog.New(slog.DiscardHandler)))
		if err != nil {
			t.Fatal(err)
		}
		a := &Admin{srv: x.Server}
		ask := func(turns ...int) (answer *httptest.ResponseRecorder, took time.Duration) {
			begun, done := time.Now(), make(chan struct{})
			answer = httptest.NewRecorder()
			go func() {
				defer close(done)
				a.health(answer, httptest.NewRequest(http.MethodGet, "/healthz", nil))
			}()
			synctest.Wait()
			for _, loop := range turns {
				x.Drain(loop)
			}
			<-done
			return answer, time.Since(begun)
		}
		for _, turns := range [][]int{{}, {0}} {
			answer, took := ask(turns...)
			if answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Body.String(), "a handler holds it") || took != healthWait {
				t.Errorf("loops %v take turns: %d %q after %v", turns, answer.Code, answer.Body, took)
			}
		}
		if answer, took := ask(0, 1); answer.Code != http.StatusOK || answer.Body.String() != "ok\n" || took != 0 {
			t.Errorf("all loops take turns: %d %q after %v", answer.Code, answer.Body, took)
		}
	})
}
