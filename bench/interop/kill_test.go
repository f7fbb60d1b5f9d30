package interop

import (
	"encoding/json"
	"flag"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

var (
	killFor     = flag.Duration("kill-for", 12*time.Second, "how long TestKills kills")
	killClients = flag.Int("kill-clients", 300, "how many clients TestKills has")
)

// For some seconds (five minutes, with 5,000 clients, in make soak) workers of a server of four are killed, frozen and
// thawed, and the bus is killed, one about every eight seconds, while clients join, publish, break off and resume. `parley
// verify` checks all promises.
func TestKills(t *testing.T) {
	report := killRun(t, "", "--kill-bus", "--for", killFor.String(), "--clients", fmt.Sprint(*killClients), "--rate", "600")
	t.Logf("%v", report.Done)
}

// For some seconds, rooms of a server of four workers are full most of the time, and workers that hold seats are killed and
// frozen: no room ever holds more than its limit, and no client is refused for long.
func TestKillsUnderALimit(t *testing.T) {
	report := killRun(t, "--max-connections-per-room 10", "--room-limit", "10", "--for", "10s", "--clients", "200", "--rooms", "14", "--rate", "400")
	for _, what := range []string{"refused joins", "take over"} {
		if report.Done[what] == 0 {
			t.Errorf("there was no %q: %v", what, report.Done)
		}
	}
	if report.Checked["limits"] == 0 {
		t.Errorf("no limit was checked: %v", report.Checked)
	}
	t.Logf("%v", report.Done)
}

// verified is the report of `parley verify --json`.
type verified struct{ Done, Found, Checked map[string]int64 }

// killRun checks the promises of a server of four workers, which are killed.
func killRun(t *testing.T, serveFlags string, verifyFlags ...string) (report verified) {
	t.Helper()
	port := freePort(t)
	serve := fmt.Sprintf("%s serve --processes 4 --port %d --admin-port %d --log-level warn %s", binary, port, freePort(t), serveFlags)
	args := []string{"verify", fmt.Sprintf("ws://127.0.0.1:%d", port), "--spawn", serve, "--kill", "--json", "--patience", "15s"}
	cmd := exec.Command(binary, append(args, verifyFlags...)...)
	var told strings.Builder
	cmd.Stderr = &told
	out, err := cmd.Output()
	if json.Unmarshal(out, &report) != nil || err != nil {
		t.Fatalf("%v\n%s\n%s", err, told.String(), out)
	}
	for _, what := range []string{"killed worker", "publish", "join", "claims"} {
		if report.Done[what] == 0 {
			t.Errorf("there was no %q: %v", what, report.Done)
		}
	}
	return report
}
