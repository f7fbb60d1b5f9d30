package api

import (
	"fmt"
	"strings"
	"testing"

	"github.com/parleyd/parley/engine"
)

// To rooms with history a backend publishes as to others: the broadcast in each room names that room, excepted members are not
// counted, and a message that cannot take a number is refused.
func TestPublishNumbered(t *testing.T) {
	w := start(t)
	for _, room := range []string{"a", "b"} {
		if err := w.srv.Rooms().Create(room, engine.RoomOptions{History: &engine.HistoryOptions{}}); err != nil {
			t.Fatal(err)
		}
	}
	both, one := w.dial("a", "b"), w.dial("b")
	for to, want := range map[string]int{`"rooms":["a","b"]`: 3, `"room":"b","except":["` + one.id + `"]`: 1, `"rooms":["b"],"except_user":"nobody"`: 2} {
		if got := w.post("/v1/publish", `{%s,"data":1,"count":true}`, to); !strings.HasPrefix(got, fmt.Sprintf(`{"recipients":%d`, want)) {
			t.Errorf("%s: %s, want %d", to, got, want)
		}
	}
	seen := map[string]int{}
	for range 4 {
		text := both.next()
		for _, room := range []string{"a", "b"} {
			if strings.HasPrefix(text, `{"type":"broadcast","room":"`+room+`","data":1,`) {
				seen[room]++
			}
		}
	}
	if seen["a"] != 1 || seen["b"] != 3 {
		t.Error(seen)
	}
	for _, message := range []string{`{"type":"x","seq":1}`, `{"type":"x","epoch":"e"}`} {
		w.refused(w.request("POST", "/v1/publish", `{"room":"a","message":`+message+`}`), invalidRequest)
	}
}
