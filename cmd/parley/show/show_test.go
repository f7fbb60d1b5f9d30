package show

import "testing"

// Sizes and times have the units of the manual.
func TestUnits(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 7: "7 B", 999: "999 B", 1000: "1 KB", 811_700: "812 KB", 999_600: "1 MB", 2_500_000_000: "2 GB", 5e15: "5000 TB"} {
		if got := Size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
