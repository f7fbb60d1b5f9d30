package verify

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/parleyd/parley/engine/canary"
)

// wiped is a checker that has wiped its server's store so long ago that no fault is excused any more.
func wiped() *checker {
	o := DefaultOptions()
	o.Wipe = "true"
	k := newChecker(&o, target{})
	k.now, k.granted = time.Now(), time.Minute
	k.wiped, k.restUntil = k.now.Add(-10*time.Second), 50*time.Second
	return k
}

// After a wipe, only sessions that had no connection at the time may be refused.
func TestSessionsWithoutConnectionMayBeWiped(t *testing.T) {
	for name, c := range map[string]struct {
		ended  time.Duration // after the wipe; 0: never
		wiped  bool
		code   int
		excuse bool
	}{
		"it lives":                             {},
		"it had ended":                         {ended: -time.Second, wiped: true, excuse: true},
		"it froze before, and ended after":     {ended: time.Second, wiped: true, excuse: true},
		"it was cut later":                     {ended: 100 * time.Millisecond},
		"the server ended it at the same time": {ended: 100 * time.Millisecond, code: codeHeartbeat, excuse: true},
		"the server ended it later":            {ended: 3 * time.Second, code: codeHeartbeat},
	} {
		k := wiped()
		old := &conn{k: k, actor: k.actors[0], phase: open, code: c.code, stays: map[*room]*stay{}}
		if c.ended != 0 {
			old.phase, old.gone = ended, k.wiped.Add(c.ended)
		}
		heir := &conn{k: k, actor: k.actors[1], phase: open}
		heir.claimRefused(&request{kind: "reconnect", token: &session{conn: old, asking: 1, wiped: c.wiped}}, "invalid_token")
		if excused := k.report.Found["session"] == 0; excused != c.excuse {
			t.Errorf("%s: excused is %v", name, excused)
		}
	}
}

// A request after the server's five seconds must not be answered "unavailable"; one before, or while the command runs, may, and
// one of a connection whose session another connection claims.
func TestUnavailableAfterAWipe(t *testing.T) {
	for name, c := range map[string]struct {
		asked   time.Duration
		wiping  bool
		claimed bool
		failed  int // claims
		found   bool
	}{
		"asked later":            {asked: 51 * time.Second, found: true},
		"asked before":           {asked: 49 * time.Second},
		"the command runs again": {asked: 51 * time.Second, wiping: true},
		"it is taken over":       {asked: 51 * time.Second, claimed: true},
		"a claim failed":         {asked: 51 * time.Second, failed: 1},
	} {
		k := wiped()
		if c.wiping {
			k.wiping = &wipe{}
		}
		asker := &conn{k: k, actor: k.actors[0], phase: open, stays: map[*room]*stay{}, claimed: c.claimed,
			session: &session{failed: c.failed}}
		asker.refusedWith(&request{kind: "join", room: k.rooms[0], granted: c.asked}, "unavailable")
		if found := k.report.Found["silent"] > 0; found != c.found {
			t.Errorf("%s: found is %v", name, k.report.Found)
		}
	}
}

// A connection that gets no token is reported, once, when patience is over.
func TestTokenNeverComes(t *testing.T) {
	k := wiped()
	for i, due := range []time.Duration{time.Second, 59 * time.Second} {
		c := &conn{k: k, actor: k.actors[i], phase: open, tokenDue: due}
		k.living[c] = true
	}
	for range 3 {
		k.silent(time.Second)
	}
	if k.report.Found["silent"] != 1 || !strings.Contains(k.report.Findings[0].Text, "reconnect_token") {
		t.Errorf("found is %v: %v", k.report.Found, k.report.Findings)
	}
}

// The command that wipes runs by a shell and may leave processes behind. It ends the run if it fails or takes too long.
func TestWipeCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ran")
	for command, want := range map[string]string{
		"sleep 60 & echo $! > '" + file + "'":   "",
		"echo 'no such bus' >&2; exit 3":        "wipe: the command failed (exit status 3) and said: no such bus",
		"kill -9 $$; echo 'never comes so far'": "wipe: the command failed (signal: killed) and said: ",
	} {
		k := wiped()
		k.opt.Wipe = command
		k.wipe()
		for until := canary.Now() + time.Minute; k.wiping != nil && canary.Now() < until; <-time.After(time.Millisecond) {
			k.now, k.granted = time.Now(), canary.Now()
			k.runTimers()
		}
		if got := ""; k.fatal != nil || want != "" {
			if k.fatal != nil {
				got = k.fatal.Error()
			}
			if got != want {
				t.Errorf("%q: %q, want %q", command, got, want)
			}
		}
		if want == "" && k.shaken != k.wiped {
			t.Errorf("%q: the server's five seconds do not begin when the command has ended", command)
		}
	}
	if text, err := os.ReadFile(file); err != nil {
		t.Error(err)
	} else if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || syscall.Kill(pid, syscall.SIGKILL) != nil {
		t.Errorf("process %s is gone: it should be left behind", text)
	}
}

// A wipe needs no server that the checker has started.
func TestWipeNeedsNoSpawn(t *testing.T) {
	o := DefaultOptions()
	o.URL, o.Wipe = "ws://127.0.0.1:1", "true"
	if err := o.check(); err != nil {
		t.Error(err)
	}
	if _, err := Run(context.Background(), o); err == nil || strings.Contains(err.Error(), "wipe") {
		t.Errorf("ended with %v, want that no server answers", err)
	}
	if line := o.command(); !strings.Contains(line, ` --wipe "true" `) {
		t.Errorf("%s does not repeat the run", line)
	}
}
