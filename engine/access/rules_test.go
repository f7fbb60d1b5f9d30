package access

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// holder is a connection with a token whose payload has these rights.
func holder(t testing.TB, user, own string) Who {
	t.Helper()
	c, err := ParseClaims([]byte(`{"sub":"`+user+`","exp":1,"parley":`+own+`}`), "parley")
	if err != nil {
		t.Fatal(err)
	}
	return Who{c.User, c.Rights}
}

func parseRules(t testing.TB, auth Auth, entries ...Entry) *Rules {
	t.Helper()
	r, err := ParseRules(entries, auth)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func one(word string) []string { return []string{word} }

// published are the rules that the specification shows, without those that need a backend.
var published = []Entry{
	{Match: "user:{user}", Join: one("users"), Publish: one("nobody")},
	{Match: "public:**", Join: one("anyone"), Publish: one("members")},
	{Match: "vip:*", Join: []string{"users", "token"}, Publish: one("token"), Members: one("token"), History: one("nobody")},
	{Match: "**", Join: one("token"), Publish: one("token")},
}

// The first rule that matches decides each act.
func TestRulesDecide(t *testing.T) {
	r := parseRules(t, Required, published...)
	stranger := Who{}
	ann := holder(t, "ann", `{"join":["chat:*","vip:1"],"publish":["chat:a"],"members":["vip:2"]}`)
	cases := []struct {
		who                             Who
		room                            string
		join, publish, members, history bool // as a member
	}{
		{stranger, "public:a:b", true, true, true, true},
		{stranger, "user:ann", false, false, true, true},
		{stranger, "user:", false, false, true, true},
		{stranger, "vip:1", false, false, false, false},
		{stranger, "chat:a", false, false, true, true},
		{ann, "user:ann", true, false, true, true},
		{ann, "user:bob", false, false, true, true},
		{ann, "vip:1", true, false, false, false},
		{ann, "vip:2", true, false, true, false},
		{ann, "chat:a", true, true, true, true},
		{ann, "chat:b", true, false, true, true},
		{ann, "chat:b:c", false, false, true, true},
		{ann, "", false, false, false, false},
	}
	for _, c := range cases {
		if c.room == "" { // ** matches it, as it matches all; the caller refuses such names before
			c.members, c.history = true, true
		}
		got := [4]Verdict{r.Join(c.who, c.room), r.Publish(c.who, c.room, true), r.Members(c.who, c.room, true), r.History(c.who, c.room, true)}
		for i, want := range [4]bool{c.join, c.publish, c.members, c.history} {
			if (got[i] == Allowed) != want {
				t.Errorf("%s in %q, %s: %v, want %v", c.who.User, c.room, fields[i].name, got[i], want)
			}
		}
	}
}

// Without membership there is no publishing, and no list or history that is for members.
func TestRulesDemandMembership(t *testing.T) {
	r := parseRules(t, Off)
	if r.Publish(Who{}, "a", false) != Forbidden || r.Members(Who{}, "a", false) != Forbidden || r.History(Who{}, "a", false) != Forbidden {
		t.Error("a stranger to the room may act in it")
	}
	ann := holder(t, "ann", `{"join":["**"],"publish":["**"]}`)
	r = parseRules(t, Required, Entry{Match: "**", Join: one("token"), Publish: one("token"), Members: one("token")})
	if r.Publish(ann, "a", false) != Forbidden || r.Publish(ann, "a", true) != Allowed {
		t.Error("a right to publish is not one without membership")
	}
	if r.Members(ann, "a", false) != Allowed || r.History(ann, "a", false) != Forbidden {
		t.Error("members by token need no membership, history by default does")
	}
}

// Without rules, and where none matches, the setting auth decides.
func TestRulesWithoutRules(t *testing.T) {
	other := Entry{Match: "other", Join: one("nobody"), Publish: one("nobody")}
	ann, user := holder(t, "ann", `{"join":["a"],"publish":["a"]}`), Who{User: "bob"}
	for _, auth := range []Auth{Off, Optional, Required} {
		for _, r := range []*Rules{parseRules(t, auth), parseRules(t, auth, other)} {
			open := auth == Off
			if got := r.Join(Who{}, "a") == Allowed; got != open {
				t.Errorf("auth %d: a stranger joins: %v", auth, got)
			}
			if got := r.Publish(user, "a", true) == Allowed; got != open {
				t.Errorf("auth %d: a member without a token publishes: %v", auth, got)
			}
			if r.Join(ann, "a") != Allowed || r.Publish(ann, "a", true) != Allowed || (r.Join(ann, "b") == Allowed) != open {
				t.Errorf("auth %d: the token does not decide", auth)
			}
			if r.Members(Who{}, "a", true) != Allowed || r.History(Who{}, "a", true) != Allowed {
				t.Errorf("auth %d: a member may not list members", auth)
			}
		}
	}
	if (&Rules{}).Join(ann, "a") != Forbidden {
		t.Error("rules that were never parsed allow something")
	}
}

// A user whose name has stars or colons gets its own rooms and no other.
func TestRulesTakeUsersLiterally(t *testing.T) {
	r := parseRules(t, Required, Entry{Match: "user:{user}", Join: one("users"), Publish: one("nobody")}, Entry{Match: "**", Join: one("nobody"), Publish: one("nobody")})
	for user, rooms := range map[string][]string{"*": {"user:1"}, "**": {"user:1", "user:a:b"}, "{user}": {"user:1"}, "": {"user:", "user:{user}"}, "a*": {"user:ab"}} {
		if user != "" && r.Join(Who{User: user}, "user:"+user) != Allowed {
			t.Errorf("%q may not join its own room", user)
		}
		for _, room := range rooms {
			if r.Join(Who{User: user}, room) != Forbidden {
				t.Errorf("%q may join %q", user, room)
			}
		}
	}
}

// Entries that are wrong are refused with their place, the key and a sentence.
func TestRulesRefused(t *testing.T) {
	good := Entry{Match: "a", Join: one("anyone"), Publish: one("members")}
	cases := []struct {
		change      func(*Entry)
		field, want string
	}{
		{func(e *Entry) { e.Match = "" }, "match", "empty"},
		{func(e *Entry) { e.Match = "*****" }, "match", "three stars"},
		{func(e *Entry) { e.Join = nil }, "join", "missing"},
		{func(e *Entry) { e.Join = []string{} }, "join", "nobody"},
		{func(e *Entry) { e.Join = one("members") }, "join", "anyone, users, token or nobody"},
		{func(e *Entry) { e.Join = []string{"token", "backend"} }, "join", "not there yet"},
		{func(e *Entry) { e.Join = []string{"token", "nobody"} }, "join", "alone"},
		{func(e *Entry) { e.Join = []string{"token", "token"} }, "join", "twice"},
		{func(e *Entry) { e.Join = one("Token") }, "join", "not known"},
		{func(e *Entry) { e.Publish = nil }, "publish", "missing"},
		{func(e *Entry) { e.Publish = one("anyone") }, "publish", "members, token or nobody"},
		{func(e *Entry) { e.Publish = one("backend") }, "publish", "not there yet"},
		{func(e *Entry) { e.Publish = []string{"members", "token"} }, "publish", "for join only"},
		{func(e *Entry) { e.Members = one("backend") }, "members", "not there yet"},
		{func(e *Entry) { e.History = one("users") }, "history", "not known"},
	}
	for _, c := range cases {
		bad := good
		c.change(&bad)
		_, err := ParseRules([]Entry{good, bad}, Off)
		var at *EntryError
		if !errors.As(err, &at) || at.Index != 1 || at.Field != c.field || !strings.Contains(at.Problem, c.want) {
			t.Errorf("%+v: %v, want %s: %s", bad, err, c.field, c.want)
		}
	}
	if _, err := ParseRules(make([]Entry, 10_000), Off); err == nil || !strings.Contains(err.Error(), "256 are allowed") {
		t.Errorf("10,000 rules: %v", err)
	}
}

// A decision allocates nothing.
func TestRulesAllocateNothing(t *testing.T) {
	r, ann := parseRules(t, Required, published...), holder(t, "ann", `{"join":["chat:*"],"publish":["chat:*"]}`)
	allowed := 0
	if n := testing.AllocsPerRun(100, func() {
		if r.Join(ann, "user:ann") == Allowed && r.Publish(ann, "chat:7", true) == Allowed && r.Members(ann, "chat:7", true) == Allowed {
			allowed++
		}
	}); n != 0 || allowed == 0 {
		t.Errorf("%v allocations, %d times allowed", n, allowed)
	}
}

// A decision by the last of four rules, and by a token with one pattern or with 64.
func BenchmarkRules(b *testing.B) {
	r := parseRules(b, Required, published...)
	for name, own := range map[string]string{
		"one": `{"join":["chat:*"]}`,
		"64":  `{"join":["` + strings.Join(make64()[:63], `","`) + `","chat:*"]}`,
	} {
		who := holder(b, "ann", own)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r.Join(who, "chat:7") != Allowed {
					b.Fatal("forbidden")
				}
			}
		})
	}
}

// make64 are as many patterns as a set may have.
func make64() (texts []string) {
	for i := range PatternsMax {
		texts = append(texts, fmt.Sprintf("room%d:*", i))
	}
	return texts
}
