package cluster

import (
	"testing"

	"github.com/parleyd/parley/engine/cluster/ledger"
)

// A death that the ledger is too busy to record is repeated until the ledger takes it.
func TestDeathsAreInsistedOn(t *testing.T) {
	calls, taken := 0, make(chan int, 1)
	(&worker{}).insist("record a worker's end", 7, func(done func(error)) error {
		if calls++; calls < 3 {
			return ledger.ErrBusy
		}
		done(nil)
		taken <- calls
		return nil
	})
	if n := <-taken; n != 3 {
		t.Errorf("taken at call %d", n)
	}
}
