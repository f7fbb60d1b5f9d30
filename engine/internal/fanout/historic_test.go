package fanout

import (
	"testing"

	"github.com/parleyd/parley/rooms"
)

// A question for messages in front of a position, or for the newest ones, needs one message more than it asks for: a worker that
// has exactly those asked for would say that there are no more.
func TestSinceForNeedsOneMore(t *testing.T) {
	if got, want := SinceFor(nil, nil, 5), (rooms.Since{Last: 6}); got != want {
		t.Errorf("the newest 5 need %+v, want %+v", got, want)
	}
	at := rooms.Position{Seq: 10, Epoch: "e"} // in front of it are 9, and back to 5; 4 is one more
	if got := SinceFor(nil, &at, 5); !got.Named || got.Position.Seq+1 > 4 {
		t.Errorf("the 5 in front of 10 need %+v, which must reach back to 4", got)
	}
}
