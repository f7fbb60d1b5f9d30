package pattern

import (
	"regexp"
	"strings"
	"testing"
)

// A pattern matches what the specification says, and nothing else.
func TestPatterns(t *testing.T) {
	cases := []struct {
		pattern, user string
		yes, no       []string
	}{
		{"chat:1", "", []string{"chat:1"}, []string{"chat:", "chat:11", "xchat:1", "CHAT:1"}},
		{"chat:*", "", []string{"chat:", "chat:1", "chat:ü\n"}, []string{"chat", "chat:1:2", "xchat:1"}},
		{"chat:**", "", []string{"chat:", "chat:1:2"}, []string{"chat", "xchat:1"}},
		{"**", "", []string{"a", ":", "a:b:c"}, nil},
		{"*", "", []string{"a", "ab"}, []string{":", "a:b"}},
		{"a:*:c", "", []string{"a:b:c", "a::c"}, []string{"a:b:b:c", "a:c", "a:b:cc"}},
		{"a:**:c", "", []string{"a:b:c", "a:b:b:c", "a::c"}, []string{"a:c"}},
		{"**:a*b", "", []string{":ab", "x:axb", "ab:a:ab:axxb"}, []string{"x:a:b", "ab"}},
		{"*a*b*c*", "", []string{"abc", "aabbcc", "xaxbxcx"}, []string{"acb", "ab:c"}},
		{"**a*:b", "", []string{"a:b", "a:aa:b"}, []string{"a:c:b"}},
		{"a.c", "", []string{"a.c"}, []string{"abc"}},
		{"[a-z]?", "", []string{"[a-z]?"}, []string{"a", "ab"}},
		{"user:{user}", "42", []string{"user:42"}, []string{"user:4", "user:{user}", "user:", "user:423"}},
		{"user:{user}", "", nil, []string{"user:", "user:{user}", "user:*"}},
		{"user:{user}", "*", []string{"user:*"}, []string{"user:1", "user:**"}},
		{"user:{user}:*", "**", []string{"user:**:1"}, []string{"user:a:1", "user:a:b:1"}},
		{"user:{user}", "a:b", []string{"user:a:b"}, []string{"user:a"}},
		{"*{user}", "{user}", []string{"{user}", "x{user}"}, []string{"x"}},
		{"{user}:{user}", "u", []string{"u:u"}, []string{"u:v", "u:"}},
	}
	for _, c := range cases {
		p, err := compile(c.pattern, true)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for _, room := range c.yes {
			if !p.MatchFor(room, c.user) {
				t.Errorf("%s of %q does not match %q", c.pattern, c.user, room)
			}
		}
		for _, room := range c.no {
			if p.MatchFor(room, c.user) {
				t.Errorf("%s of %q matches %q", c.pattern, c.user, room)
			}
		}
	}
}

// In a token {user} has no meaning of its own.
func TestUserIsLiteralInTokens(t *testing.T) {
	p, err := Parse("user:{user}")
	if err != nil || !p.Match("user:{user}") || p.MatchFor("user:42", "42") {
		t.Errorf("%v, %+v", err, p)
	}
	if (Pattern{}).Match("") || (Set{}).Match("a") {
		t.Error("a pattern that was never parsed matches")
	}
}

// Hostile patterns are refused with a sentence.
func TestPatternsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "is empty",
		strings.Repeat("a", 256):  "256 bytes",
		"a\x00":                   "control",
		"a\u0085":                 "control",
		"a\xff":                   "UTF-8",
		"a\ufffd":                 "UTF-8",
		"*a*b*c*d*":               "5 stars",
		"**:**:**:**:**":          "5 stars",
		"a***":                    "three stars",
		strings.Repeat("*a", 100): "100 stars",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := ParseAll(make([]string, 10_000)); err == nil || !strings.Contains(err.Error(), "64 are allowed") {
		t.Errorf("10,000 patterns: %v", err)
	}
	if _, err := ParseAll([]string{"a", "***"}); err == nil || !strings.Contains(err.Error(), "pattern 1") {
		t.Errorf("the second pattern is at fault: %v", err)
	}
	if s, err := ParseAll(make64()); err != nil || s.Len() != 64 || !s.Match("room63:x") || s.Match("room64:x") {
		t.Errorf("64 patterns: %v", err)
	}
}

func make64() (texts []string) {
	for i := range SetMax {
		texts = append(texts, "room"+string(rune('0'+i/10))+string(rune('0'+i%10))+":*")
	}
	return texts
}

// expression is the meaning of a pattern, written by other means.
func expression(pattern, user string) *regexp.Regexp {
	text := regexp.QuoteMeta(pattern)
	text = strings.ReplaceAll(text, `\*\*`, `.*`)
	text = strings.ReplaceAll(text, `\*`, `[^:]*`)
	text = strings.ReplaceAll(text, regexp.QuoteMeta(userWord), regexp.QuoteMeta(user))
	return regexp.MustCompile(`(?s)^(?:` + text + `)$`)
}

// The matcher agrees with regular expressions on all short patterns, names and users.
func TestPatternsAgreeWithExpressions(t *testing.T) {
	var rooms []string
	grow([]string{"a", "b", ":"}, 6, func(s string) { rooms = append(rooms, s) })
	n := 0
	grow([]string{"a", "b", ":", "*", "**"}, 5, func(text string) {
		p, err := compile(text, true)
		if err != nil {
			return
		}
		want := expression(text, "")
		for i := n % 7; i < len(rooms); i += 7 {
			if got := p.MatchFor(rooms[i], ""); got != want.MatchString(rooms[i]) {
				t.Fatalf("%s matches %q: %v", text, rooms[i], got)
			}
		}
		n++
	})
	if n < 1500 {
		t.Errorf("only %d patterns tried", n)
	}
}

// grow calls f for all texts of up to length parts.
func grow(parts []string, length int, f func(string)) {
	var more func(string, int)
	more = func(text string, left int) {
		if text != "" {
			f(text)
		}
		if left > 0 {
			for _, p := range parts {
				more(text+p, left-1)
			}
		}
	}
	more("", length)
}

// The matcher agrees with regular expressions, whatever pattern, name and user.
func FuzzPattern(f *testing.F) {
	f.Add("a:*:{user}", "a:b:*", "*")
	f.Add("**a*b**", "xaxb:", "")
	f.Fuzz(func(t *testing.T, text, room, user string) {
		p, err := compile(text, true)
		if err != nil || CheckName(room, bytesMax) != nil || CheckName(user, 128) != nil {
			return
		}
		if got := p.MatchFor(room, user); got != expression(text, user).MatchString(room) {
			t.Errorf("%q of %q matches %q: %v", text, user, room, got)
		}
		if p, _ = compile(text, false); p.Match(room) != expression(strings.ReplaceAll(text, userWord, "{\x00}"), "").MatchString(strings.ReplaceAll(room, userWord, "{\x00}")) {
			t.Errorf("%q matches %q differently in a token", text, room)
		}
	})
}

// The worst name for the worst pattern costs a bounded number of steps: it grows by the square of the name at most.
func BenchmarkPatternWorst(b *testing.B) {
	p, err := Parse("**a*a*a*ab")
	if err != nil {
		b.Fatal(err)
	}
	room := strings.Repeat("a", 255)
	for b.Loop() {
		if p.Match(room) {
			b.Fatal("it matches")
		}
	}
}

// A set of 64 patterns, of which the last matches.
func BenchmarkPatternsFull(b *testing.B) {
	s, err := ParseAll(make64())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !s.Match("room63:7") {
			b.Fatal("no match")
		}
	}
}
