package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
)

// token signs a token of a user that was issued at a time.
func token(t testing.TB, user, jti string, issued time.Time) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: tokenSecret}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := json.Marshal(map[string]any{"sub": user, "jti": jti, "iat": issued.Unix(), "exp": time.Now().Add(time.Hour).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// isGood reports whether the server takes a token.
func (w *world) isGood(token string) bool {
	w.t.Helper()
	conn, br, _, err := ws.Dialer{Timeout: patient, Header: ws.HandshakeHeaderHTTP(bearer(token))}.Dial(w.t.Context(), "ws://"+w.srv.Addr().String()+"/")
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	var in io.Reader = conn
	if br != nil {
		in = br
	}
	conn.SetReadDeadline(time.Now().Add(patient))
	_, err = wsutil.ReadServerText(struct {
		io.Reader
		io.Writer
	}{in, conn})
	var closed wsutil.ClosedError
	if err != nil && !(errors.As(err, &closed) && closed.Code == engine.StatusUnauthorized) {
		w.t.Fatal(err)
	}
	return err == nil
}

// A user's tokens of before are good no more, newer ones are, and live connections end.
func TestRevokeUser(t *testing.T) {
	w := start(t)
	now := time.Now()
	old, young := token(t, "ann", "1", now.Add(-time.Hour)), token(t, "ann", "2", now)
	a, b, c := w.dialWith(bearer(old)), w.dialWith(bearer(old)), w.dialWith(bearer(young))
	if got := w.post("/v1/tokens/revoke", `{"user":"ann","issued_before":%d}`, now.Add(-time.Minute).Unix()); got != `{"closed":2}` {
		t.Error(got)
	}
	a.closes(engine.StatusUnauthorized)
	b.closes(engine.StatusUnauthorized)
	w.expect(c)
	if w.isGood(old) || !w.isGood(young) {
		t.Error("the old token is good, or the new one is not")
	}
	eventually(t, "the visitor has left", func() bool { return w.srv.ConnectionCount() == 1 })
	if got := w.post("/v1/tokens/revoke", `{"user":"ann"}`); got != `{"closed":1}` {
		t.Error(got)
	}
	c.closes(engine.StatusUnauthorized)
	if w.isGood(young) {
		t.Error("a token of this second is good")
	}
	if got := w.post("/v1/tokens/unrevoke", `{"user":"ann"}`); got != `{}` {
		t.Error(got)
	}
	if !w.isGood(old) {
		t.Error("the revocation was taken back, and the token is refused")
	}
}

// One token ends by its jti; another of the same user stays good.
func TestRevokeToken(t *testing.T) {
	w := start(t)
	one, other := token(t, "ann", "j/1", time.Now()), token(t, "ann", "j/2", time.Now())
	c, d := w.dialWith(bearer(one)), w.dialWith(bearer(other))
	if got := w.post("/v1/tokens/revoke", `{"jti":"j/1","until":%d}`, time.Now().Add(time.Hour).Unix()); got != `{"closed":1}` {
		t.Error(got)
	}
	c.closes(engine.StatusUnauthorized)
	w.expect(d)
	if w.isGood(one) || !w.isGood(other) {
		t.Error("the wrong token is good")
	}
	if got := w.post("/v1/tokens/revoke", `{"jti":"not used"}`); got != `{"closed":0}` {
		t.Error(got)
	}
}

// The list of revocations comes in pages, as lines, and on the socket; what was taken back is not in it.
func TestRevocationsAreListed(t *testing.T) {
	w := start(t)
	if got := w.get("/v1/tokens/revoke"); got != `{"revocations":[]}` {
		t.Error(got)
	}
	later := time.Now().Add(time.Hour).Unix()
	for i := range 5 {
		w.post("/v1/tokens/revoke", `{"user":"u%d","issued_before":1700000000}`, i)
		w.post("/v1/tokens/revoke", `{"jti":"j%d","until":%d}`, i, later)
	}
	w.post("/v1/tokens/unrevoke", `{"jti":"j3"}`)
	var names []string
	for after, pages := "", 0; ; pages++ {
		var page struct {
			Revocations []revocationRow
			Next        string
		}
		if err := json.Unmarshal([]byte(w.get("/v1/tokens/revoke", "limit", "4", "after", after)), &page); err != nil {
			t.Fatal(err)
		}
		for _, one := range page.Revocations {
			names = append(names, one.User+one.ID)
		}
		if after = page.Next; after == "" {
			break
		}
	}
	if got := strings.Join(names, " "); got != "u0 u1 u2 u3 u4 j0 j1 j2 j4" {
		t.Error(got)
	}
	r := w.request(http.MethodGet, "/v1/tokens/revoke", "")
	r.Header.Set("Accept", linesType)
	if _, got := w.send(r); !strings.HasSuffix(got, `{"end":true,"count":9}`+"\n") {
		t.Error(got)
	}
	s := w.socketOf(w.all)
	s.say(`{"do":"tokens/revoke","limit":1}`)
	s.say(`{"do":"tokens/revoke","user":"bob"}`)
	s.say(`{"do":"tokens/revoke","user":""}`)
	if got := s.next(); !strings.HasPrefix(got, `{"result":{"revocations":[{"user":"u0","issued_before":1700000000,`) {
		t.Error(got)
	}
	if got := s.next(); got != `{"result":{"closed":0}}` {
		t.Error(got)
	}
	if got := s.next(); !strings.Contains(got, `"code":"invalid_request"`) {
		t.Error(got)
	}
}

// What cannot be revoked is refused, with the field at fault.
func TestRevokeIsRefused(t *testing.T) {
	reader, readerEntry := makeKey(t, "reader", "all")
	readerEntry.Rooms = []string{"a"}
	manager, managerEntry := makeKey(t, "manager", "publish", "read", "manage", "operate")
	w := start(t, readerEntry, managerEntry)
	for body, pointer := range map[string]string{
		`{}`:                                                   "",
		`{"user":"a","jti":"b"}`:                               "/jti",
		`{"user":""}`:                                          "/user",
		`{"user":7}`:                                           "/user",
		`{"jti":"a","issued_before":1}`:                        "/issued_before",
		`{"user":"a","until":4102444800}`:                      "/until",
		`{"user":"a","issued_before":"now"}`:                   "/issued_before",
		`{"user":"a","issued_before":-1}`:                      "/issued_before",
		`{"user":"a","issued_before":1e99}`:                    "/issued_before",
		`{"jti":"a","until":1}`:                                "",
		`{"jti":"a","until":9000000000000000}`:                 "",
		`{"user":"a","reason":"x"}`:                            "/reason",
		fmt.Sprintf(`{"user":"%s"}`, strings.Repeat("a", 129)): "",
		`{"user":"a\u0000"}`:                                   "",
	} {
		if p := w.refused(w.request(http.MethodPost, "/v1/tokens/revoke", body), invalidRequest); len(p.Errors) == 0 || p.Errors[0].Pointer != pointer {
			t.Errorf("%s: %+v", body, p)
		}
	}
	for body, says := range map[string]string{
		fmt.Sprintf(`{"user":"%s"}`, strings.Repeat("a", 129)): "the user has 129 bytes: 128 are allowed",
		fmt.Sprintf(`{"jti":"%s"}`, strings.Repeat("a", 256)):  "the jti has 256 bytes: 255 are allowed",
		`{"jti":"a\u0000"}`:                         "the jti has a control character",
		`{"user":"a","issued_before":900000000000}`: "a time between 1970 and 9999",
		`{"jti":"a","until":1}`:                     "is over",
	} {
		if p := w.refused(w.request(http.MethodPost, "/v1/tokens/revoke", body), invalidRequest); !strings.Contains(p.Detail, says) {
			t.Errorf("%s: %s", body, p.Detail)
		}
	}
	w.refused(w.request(http.MethodPost, "/v1/tokens/unrevoke", `{"user":"a","issued_before":1}`), invalidRequest)
	w.refused(w.request(http.MethodGet, "/v1/tokens/revoke?after=%0A", ""), invalidRequest)
	for _, key := range []string{reader, manager} {
		for _, path := range []string{"/v1/tokens/revoke", "/v1/tokens/unrevoke"} {
			r := w.request(http.MethodPost, path, `{"user":"a"}`)
			r.Header.Set("Authorization", "Bearer "+key)
			w.refused(r, forbidden)
		}
		r := w.request(http.MethodGet, "/v1/tokens/revoke", "")
		r.Header.Set("Authorization", "Bearer "+key)
		w.refused(r, forbidden)
	}
	if got := w.get("/v1/tokens/revoke"); got != `{"revocations":[]}` {
		t.Error("something was revoked:", got)
	}
	w.refused(w.request(http.MethodDelete, "/v1/tokens/revoke", ""), methodNotAllowed)
}

// Without tokens there is nothing to revoke.
func TestRevokeWithoutTokens(t *testing.T) {
	w := startWith(t, func(s *Server) { s.tokens = nil })
	for _, r := range []*http.Request{w.request(http.MethodPost, "/v1/tokens/revoke", `{"user":"a"}`),
		w.request(http.MethodPost, "/v1/tokens/unrevoke", `{"user":"a"}`), w.request(http.MethodGet, "/v1/tokens/revoke", "")} {
		w.refused(r, notFound)
	}
}
