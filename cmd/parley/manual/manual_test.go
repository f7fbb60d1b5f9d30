package manual

import (
	"strings"
	"testing"
)

// Text that looks like a request of roff is text.
func TestEscapes(t *testing.T) {
	for text, want := range map[string]string{".TH x": `\&.TH x`, "a\n.b": "a\n\\&.b", "'x'": `\(aqx\(aq`, `C:\n`: `C:\en`, "--port": `\-\-port`} {
		if got := escaped(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	page := Book{"1.2.3", "2027-01-31"}.Settings([]Group{{"A \"group\"", []Entry{{"port: 9090", ".port"}}}}, nil)
	if !strings.HasPrefix(page, `.TH PARLEY.YAML 5 "2027\-01\-31" "parley 1.2.3" "Parley"`) || !strings.Contains(page, "\n.SS \"A \\(dqgroup\\(dq\"\n.TP\n\\fBport: 9090\\fR\n\\&.port\n") {
		t.Errorf("%s", page)
	}
}
