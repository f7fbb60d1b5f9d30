package fanout

import (
	"fmt"
	"testing"
)

// An answer whose letter was still on its way, when the connection fell behind, is owed in front of those to later messages.
func TestOwedInOrder(t *testing.T) {
	var g lag
	for _, number := range []uint64{2, 1, 4, 3, 5} {
		g.owe(number, nil)
	}
	if got := fmt.Sprint(g.owed); got != "[{1 <nil>} {2 <nil>} {3 <nil>} {4 <nil>} {5 <nil>}]" {
		t.Error(got)
	}
}
