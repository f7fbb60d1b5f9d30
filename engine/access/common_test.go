package access

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/parleyd/parley/engine"
)

// rightsOf are the rights of our own claim.
func rightsOf(t testing.TB, own string) *Rights {
	t.Helper()
	c, err := ParseClaims([]byte(`{"sub":"ann","exp":1900000000,"parley":`+own+`}`), "parley")
	if err != nil {
		t.Fatal(err)
	}
	return c.Rights
}

// Tokens share rights that are equal in each act and pattern, and no others.
func TestCommonRights(t *testing.T) {
	var x common
	different := []string{
		`{}`, `{"join":["a"]}`, `{"publish":["a"]}`, `{"join":["a"],"publish":["a"]}`, `{"join":["a","b"]}`, `{"join":["b","a"]}`, `{"join":["ab"]}`,
		`{"join":["a*"]}`, `{"join":["a**"]}`, `{"join":["*a"]}`, `{"join":["a","*"]}`, `{"join":["a:*"]}`, `{"join":["a"],"members":[]}`,
		`{"join":["a"],"history":[]}`, `{"join":["a"],"history":["b"]}`, `{"join":["**:*"]}`, `{"join":["**a*"]}`, `{"join":["a","a"]}`,
	}
	var kept []*Rights
	for i, own := range different {
		kept = append(kept, x.share(rightsOf(t, own)))
		for j, earlier := range kept[:i] {
			if earlier == kept[i] {
				t.Errorf("%s shares the rights of %s", own, different[j])
			}
		}
	}
	for i, own := range different {
		if x.share(rightsOf(t, own)) != kept[i] {
			t.Errorf("%s is in memory twice", own)
		}
	}
	if x.share(rightsOf(t, `{"join":["a"],"members":["a"],"history":["a"]}`)) != kept[1] {
		t.Error("lists that are left out are those of join")
	}
	runtime.KeepAlive(kept)
}

// The table neither keeps rights in memory nor grows; and rights that it has lost are found again once they come again.
func TestCommonRightsAreBounded(t *testing.T) {
	var x common
	own := `{"join":["own"]}`
	first := x.share(rightsOf(t, own))
	var kept []*Rights
	for i := range 4 * commonBuckets * commonWays {
		kept = append(kept, x.share(rightsOf(t, fmt.Sprintf(`{"join":["room-%d"]}`, i))))
	}
	second := x.share(rightsOf(t, own))
	if !first.equal(second) || x.share(rightsOf(t, own)) != second {
		t.Error("rights are not shared in a full table")
	}
	freed := make(chan struct{})
	runtime.AddCleanup(kept[len(kept)-1], func(c chan struct{}) { close(c) }, freed)
	runtime.KeepAlive(kept)
	kept = nil
	for {
		runtime.GC()
		select {
		case <-freed:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// What a connection's identity keeps of a token, with one of 150 sets of patterns: bytes of heap.
func BenchmarkHeldTokens(b *testing.B) {
	const tokens, services = 20_000, 150
	g, err := NewGuard(GuardOptions{Auth: Required, Verifier: verifier(b, Options{Secret: hmacSecret, Issuer: "me", Audience: "chat"})})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	signed := make([]string, tokens)
	for i := range signed {
		signed[i] = sign(b, "HS256", hmacSecret, "", fmt.Sprintf(`{"sub":"user-%d","iss":"me","aud":"chat","iat":%d,"exp":%d,"jti":"jti-%d","parley":{"join":["room-%d-*"],"publish":["room-%[5]d-*"]}}`,
			i, now.Unix(), now.Add(time.Hour).Unix(), i, i%services))
	}
	held := make([]engine.Identity, tokens)
	for b.Loop() {
		clear(held)
		before := heap()
		for i, token := range signed {
			claims, err := g.verify(token)
			if err != nil {
				b.Fatal(err)
			}
			held[i] = g.identity(claims, Who{})
		}
		b.ReportMetric(float64(heap()-before)/tokens, "B/token")
	}
	runtime.KeepAlive(held)
}

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
