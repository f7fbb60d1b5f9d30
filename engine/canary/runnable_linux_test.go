package canary

import "testing"

func TestRunning(t *testing.T) {
	for text, want := range map[string]int{"0.00 0.01 0.05 12/290 31140\n": 12, "": 1, "1 2 3 x/y 5": 1, "1 2 3 0/9 5": 1} {
		if got := running([]byte(text)); got != want {
			t.Errorf("%q: %d threads, want %d", text, got, want)
		}
	}
}
