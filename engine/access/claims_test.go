package access

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/parleyd/parley/protocol/pattern"
)

// Claims come out as they stand in the token.
func TestClaims(t *testing.T) {
	c, err := ParseClaims([]byte(`{"sub":"42","exp":1790000000,"iat":1789999000.25,"nbf":1.7e9,"jti":"j","iss":"me","aud":["a","b"],"other":{"x":[1]},
		"parley":{"join":["chat:*","user:42"],"publish":["chat:*"],"auto":["user:42"],"attributes":{"name":"Ann","big":12345678901234567890.10, "o": {"b":1,"a":[ ]}}}}`), "parley")
	if err != nil {
		t.Fatal(err)
	}
	if c.User != "42" || c.ID != "j" || c.Issuer != "me" || strings.Join(c.Audience, ",") != "a,b" || strings.Join(c.Auto, ",") != "user:42" {
		t.Errorf("%+v", c)
	}
	if !c.Expires.Equal(time.Unix(1790000000, 0)) || !c.Issued.Equal(time.Unix(1789999000, 25e7)) || !c.NotBefore.Equal(time.Unix(17e8, 0)) {
		t.Errorf("%v, %v, %v", c.Expires, c.Issued, c.NotBefore)
	}
	for name, want := range map[string]string{"name": `"Ann"`, "big": `12345678901234567890.10`, "o": `{"b":1,"a":[ ]}`} {
		if got := string(c.Attributes[name]); got != want {
			t.Errorf("attribute %s is %s, want %s", name, got, want)
		}
	}
	for what, want := range [acts]bool{join: true, publish: false, members: true, history: true} {
		if got := c.Rights.patterns[what].Match("user:42"); got != want {
			t.Errorf("%s of user:42: %v", fields[what].name, got)
		}
	}
}

// members and history are join where they are absent, and nothing where they are empty; without our claim there is no right.
func TestClaimsDefaults(t *testing.T) {
	for own, want := range map[string][acts]bool{
		`{"join":["a"]}`:                    {join: true, members: true, history: true},
		`{"join":["a"],"members":[]}`:       {join: true, history: true},
		`{"history":["a"],"publish":["a"]}`: {publish: true, history: true},
		`{}`:                                {},
		`{"join":["a"],"members":[],"history":[]}`: {join: true},
	} {
		c, err := ParseClaims([]byte(`{"sub":"u","exp":1,"https://x/y":`+own+`}`), "https://x/y")
		if err != nil {
			t.Errorf("%s: %v", own, err)
			continue
		}
		for what := range want {
			if got := c.Rights.patterns[what].Match("a"); got != want[what] {
				t.Errorf("%s: %s is %v", own, fields[what].name, got)
			}
		}
	}
	c, err := ParseClaims([]byte(`{"sub":"u","exp":1,"Parley":{"join":["**"]},"aud":"a"}`), "parley")
	if err != nil || c.Rights.patterns[join].Len() != 0 || len(c.Audience) != 1 {
		t.Errorf("%v, %+v", err, c)
	}
}

func quoted(n int, text string) string {
	return `["` + strings.Join(strings.Split(strings.Repeat(text+" ", n-1)+text, " "), `","`) + `"]`
}

// Hostile claims are refused, with a sentence that says which.
func TestClaimsRefused(t *testing.T) {
	own := func(text string) string { return `{"sub":"u","exp":1,"parley":` + text + `}` }
	attributes := make([]string, 257)
	for i := range attributes {
		attributes[i] = fmt.Sprintf(`"a%d":1`, i)
	}
	cases := []struct{ payload, want string }{
		{``, "not an object"},
		{`[]`, "not an object"},
		{`null`, "not an object"},
		{`"x"`, "not an object"},
		{`{"sub":"u","exp":1}x`, "not an object"},
		{"{\"sub\":\"\xff\",\"exp\":1}", "not an object"},
		{`{"sub":"u","exp":1,"x":` + strings.Repeat("[", 11000), "not an object"},
		{`{"sub":"u","exp":1,"x":"` + strings.Repeat("x", TokenBytesMax) + `"}`, "not an object"},
		{`{"sub":"u","exp":1,"exp":2}`, "twice"},
		{`{"sub":"u","exp":1,"ex\u0070":2}`, "twice"},
		{`{"exp":1}`, "sub is missing"},
		{`{"Sub":"u","exp":1}`, "sub is missing"},
		{`{"sub":null,"exp":1}`, "sub is missing"},
		{`{"sub":"","exp":1}`, "sub is empty"},
		{`{"sub":42,"exp":1}`, "not a text"},
		{`{"sub":["u"],"exp":1}`, "not a text"},
		{`{"sub":"` + strings.Repeat("u", 129) + `","exp":1}`, "sub has 129 bytes"},
		{`{"sub":"a\u0000","exp":1}`, "control"},
		{`{"sub":"a\u0085","exp":1}`, "control"},
		{`{"sub":"\ud800","exp":1}`, "UTF-8"},
		{`{"sub":"u"}`, "exp is missing"},
		{`{"sub":"u","exp":null}`, "exp is not a number"},
		{`{"sub":"u","exp":"1790000000"}`, "exp is not a number"},
		{`{"sub":"u","exp":0}`, "exp is not a number"},
		{`{"sub":"u","exp":-1}`, "exp is not a number"},
		{`{"sub":"u","exp":1e-12}`, "exp is not a number"},
		{`{"sub":"u","exp":1e308}`, "exp is not a number"},
		{`{"sub":"u","exp":1e999999999}`, "exp is not a number"},
		{`{"sub":"u","exp":253402300800}`, "exp is not a number"},
		{`{"sub":"u","exp":9223372036854775808}`, "exp is not a number"},
		{`{"sub":"u","exp":1,"nbf":true}`, "nbf is not a number"},
		{`{"sub":"u","exp":1,"iat":{}}`, "iat is not a number"},
		{`{"sub":"u","exp":1,"jti":7}`, "not a text"},
		{`{"sub":"u","exp":1,"jti":""}`, "jti is empty"},
		{`{"sub":"u","exp":1,"iss":7}`, "not a text"},
		{`{"sub":"u","exp":1,"aud":7}`, "aud is not"},
		{`{"sub":"u","exp":1,"aud":null}`, "aud is not"},
		{`{"sub":"u","exp":1,"aud":[null]}`, "aud is not"},
		{`{"sub":"u","exp":1,"aud":` + quoted(65, "a") + `}`, "aud has 65"},
		{own(`null`), "parley: it is not an object"},
		{own(`[]`), "parley: it is not an object"},
		{own(`{"join":["a"],"join":["b"]}`), "twice"},
		{own(`{"pubish":["a"]}`), `"pubish" is not known`},
		{own(`{"Join":["a"]}`), "not known"},
		{own(`{"join":"a"}`), "join is not a list"},
		{own(`{"join":[1]}`), "join is not a list"},
		{own(`{"join":[null]}`), "join is not a list"},
		{own(`{"join":null}`), "join is not a list"},
		{own(`{"join":[["a"]]}`), "join is not a list"},
		{own(`{"join":["a","***"]}`), "join: pattern 1"},
		{own(`{"join":` + quoted(65, "a") + `}`), "65 entries"},
		{own(`{"join":` + quoted(33, "a") + `,"publish":` + quoted(32, "a") + `}`), "65 patterns"},
		{own(`{"join":["a"],"auto":["b"]}`), "join does not allow"},
		{own(`{"auto":["b"]}`), "join does not allow"},
		{own(`{"join":["**"],"auto":["a\u0001"]}`), "control"},
		{own(`{"join":["**"],"auto":[""]}`), "auto is empty"},
		{own(`{"attributes":[]}`), "attributes is not"},
		{own(`{"attributes":null}`), "attributes is not"},
		{own(`{"attributes":{"a":1,"a":2}}`), "twice"},
		{own(`{"attributes":{"":1}}`), "is empty"},
		{own(`{"attributes":{` + strings.Join(attributes, ",") + `}}`), "257 attributes"},
	}
	for _, c := range cases {
		if _, err := ParseClaims([]byte(c.payload), "parley"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.80s: %v, want %q", c.payload, err, c.want)
		}
	}
}

// Dates keep their fraction to the nanosecond, and 64 patterns are allowed [RFC 7519 §2].
func TestClaimsAtTheirBounds(t *testing.T) {
	for text, want := range map[string]time.Time{
		"1":                    time.Unix(1, 0),
		"1.5":                  time.Unix(1, 5e8),
		"1790000000.123456789": time.Unix(1790000000, 123456789),
		"17900000e2":           time.Unix(1790000000, 0),
		"253402300799":         time.Unix(secondsMax, 0),
	} {
		if at, ok := parseDate(text); !ok || !at.Equal(want) {
			t.Errorf("%s: %v, %v", text, at, ok)
		}
	}
	payload := `{"sub":"` + strings.Repeat("u", 128) + `","exp":1,"parley":{"join":` + quoted(32, "a") + `,"publish":` + quoted(32, "a") + `,"auto":` + quoted(64, "a") + `}}`
	if _, err := ParseClaims([]byte(payload), "parley"); err != nil {
		t.Error(err)
	}
}

// Whatever the payload, its claims keep the bounds, and each room of auto is allowed.
func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"sub":"42","exp":1790000000,"parley":{"join":["chat:*","user:42"],"publish":["chat:*"],"auto":["user:42"],"attributes":{"name":"Ann"}}}`))
	f.Add([]byte(`{"sub":"u","exp":1.5e3,"aud":["a"],"parley":{"members":[],"history":["**"]}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := ParseClaims(payload, "parley")
		if err != nil {
			return
		}
		n := 0
		for what := range fields[:members] {
			n += c.Rights.patterns[what].Len()
		}
		if pattern.CheckName(c.User, UserBytesMax) != nil || c.Expires.Unix() < 0 || c.Expires.Unix() > secondsMax || n > pattern.SetMax || len(c.Auto) > autoMax {
			t.Errorf("%s: %+v", payload, c)
		}
		for _, room := range c.Auto {
			if !c.Rights.patterns[join].Match(room) {
				t.Errorf("%s: %q is not allowed", payload, room)
			}
		}
	})
}
