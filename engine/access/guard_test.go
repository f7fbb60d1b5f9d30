package access

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/canary"
)

// house is a server whose clients are held to tokens.
type house struct {
	t      testing.TB
	srv    *engine.Server
	guard  *Guard
	secret []byte
}

func guarded(t testing.TB, o GuardOptions) *house {
	t.Helper()
	h := &house{t: t, secret: hmacSecret}
	var err error
	if o.Verifier == nil {
		o.Verifier = verifier(t, Options{Secret: h.secret})
	}
	if h.guard, err = NewGuard(o); err != nil {
		t.Fatal(err)
	}
	cfg := engine.DefaultConfig()
	cfg.Port, cfg.Loops, cfg.Subprotocols, cfg.OffloadWorkers = -1, 2, []string{Subprotocol}, 4
	cfg.AttributesBytesMax = 100
	if h.srv, err = engine.New(cfg); err != nil {
		t.Fatal(err)
	}
	h.guard.Install(h.srv)
	if err := h.srv.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		bounded, cancel := context.WithTimeout(context.Background(), canary.Stretch(patient))
		defer cancel()
		h.srv.Shutdown(bounded)
	})
	return h
}

// token signs claims; life is from now on.
func (h *house) token(user string, life time.Duration, own string) string {
	h.t.Helper()
	now := time.Now()
	return sign(h.t, "HS256", h.secret, "", fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d,"jti":%q,"parley":%s}`, user, now.Unix(), now.Add(life).Unix(), "jti-"+user, own))
}

// guest is a client.
type guest struct {
	t    testing.TB
	conn net.Conn
	id   string
}

func (h *house) dial(d ws.Dialer, query string) *guest {
	h.t.Helper()
	conn, br, _, err := d.Dial(context.Background(), "ws://"+h.srv.Addr().String()+"/"+query)
	if err != nil {
		h.t.Fatalf("dial: %v", err)
	}
	h.t.Cleanup(func() { conn.Close() })
	if br != nil {
		conn = &buffered{conn, br}
	}
	return &guest{t: h.t, conn: conn}
}

type buffered struct {
	net.Conn
	r interface{ Read([]byte) (int, error) }
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func withHeader(name, value string) ws.Dialer {
	return ws.Dialer{Header: ws.HandshakeHeaderHTTP(http.Header{name: {value}})}
}

// expect reads until a message of a type.
func (g *guest) expect(typ string) map[string]any {
	g.t.Helper()
	for {
		g.conn.SetReadDeadline(time.Now().Add(canary.Stretch(patient)))
		raw, _, err := wsutil.ReadServerData(g.conn)
		if err != nil {
			g.t.Fatalf("waiting for %s: %v", typ, err)
		}
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			g.t.Fatal(err)
		}
		if m["type"] == typ {
			return m
		}
	}
}

// exchange sends a message and waits for an answer of a type, with a code if it is an error.
func (g *guest) exchange(text, typ, code string) map[string]any {
	g.t.Helper()
	if err := wsutil.WriteClientText(g.conn, []byte(text)); err != nil {
		g.t.Fatal(err)
	}
	m := g.expect(typ)
	if got, _ := m["code"].(string); got != code {
		g.t.Errorf("%s: %v, wanted %q", text, m, code)
	}
	return m
}

// closed is the code with which the server closes.
func (g *guest) closed() ws.StatusCode {
	g.t.Helper()
	for {
		g.conn.SetReadDeadline(time.Now().Add(canary.Stretch(patient)))
		header, err := ws.ReadHeader(g.conn)
		if err != nil {
			g.t.Fatalf("waiting for a close frame: %v", err)
		}
		payload := make([]byte, header.Length)
		if _, err := readFull(g.conn, payload); err != nil {
			g.t.Fatal(err)
		}
		if header.OpCode == ws.OpClose {
			return ws.StatusCode(uint16(payload[0])<<8 | uint16(payload[1]))
		}
	}
}

func readFull(r interface{ Read([]byte) (int, error) }, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

const rights = `{"join":["chat:*","user:ann"],"publish":["chat:*"],"auto":["user:ann"],"attributes":{"name":"Ann","n":9007199254740993}}`

// A token is found wherever the contract says, the first place wins, and the client gets its user, rooms and attributes.
func TestWhereTokensAre(t *testing.T) {
	h := guarded(t, GuardOptions{Auth: Required, Cookie: "sid", Query: true})
	good, bad := h.token("ann", time.Hour, rights), h.token("ann", time.Hour, rights)+"x"
	for name, dial := range map[string]func(token string) *guest{
		"header": func(token string) *guest { return h.dial(withHeader("Authorization", "bearer "+token), "?token="+bad) },
		"subprotocol": func(token string) *guest {
			return h.dial(ws.Dialer{Protocols: []string{Subprotocol, TokenProtocol + token}}, "?token="+bad)
		},
		"cookie": func(token string) *guest { return h.dial(withHeader("Cookie", "a=b; sid="+token), "?token="+bad) },
		"query":  func(token string) *guest { return h.dial(ws.Dialer{}, "?token="+token) },
	} {
		t.Run(name, func(t *testing.T) {
			g := dial(good)
			g.t = t
			if m := g.expect("connected"); m["user"] != "ann" || m["expires_in"].(float64) < 3000 || m["expires_in"].(float64) > 3600 || m["auth_required"] != nil {
				t.Error(m)
			}
			if m := g.expect("joined"); m["room"] != "user:ann" {
				t.Error(m)
			}
			g.exchange(`{"type":"join","room":"chat:1"}`, "joined", "")
			g.exchange(`{"type":"join","room":"other"}`, "error", "forbidden")
			g.exchange(`{"type":"broadcast","room":"user:ann","data":1}`, "error", "forbidden")
			g.exchange(`{"type":"broadcast","room":"chat:1","data":1}`, "broadcast_sent", "")
			if code := dial(bad).closed(); code != engine.StatusUnauthorized {
				t.Error("a bad token:", code)
			}
			if code := dial(h.token("ann", -time.Hour, rights)).closed(); code != engine.StatusTokenExpired {
				t.Error("an expired token:", code)
			}
		})
	}
	found := h.srv.FindByAttribute("n", json.RawMessage("9007199254740993"))
	if len(found) != 4 || found[0].Principal() != "ann" {
		t.Errorf("%d connections with the attribute", len(found))
	}
}

// The subprotocol of the answer is the server's, never the token.
func TestSubprotocolOfTheAnswer(t *testing.T) {
	h := guarded(t, GuardOptions{Auth: Required})
	d := ws.Dialer{Protocols: []string{TokenProtocol + h.token("ann", time.Hour, rights), Subprotocol}}
	conn, _, handshake, err := d.Dial(context.Background(), "ws://"+h.srv.Addr().String()+"/")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if handshake.Protocol != Subprotocol {
		t.Error(handshake.Protocol)
	}
}

// Without a token in the handshake the first message must have one; where it is optional, any later one may.
func TestAuthByMessage(t *testing.T) {
	h := guarded(t, GuardOptions{Auth: Required})
	g := h.dial(ws.Dialer{}, "")
	if m := g.expect("connected"); m["auth_required"] != true {
		t.Error(m)
	}
	g.exchange(`{"type":"join","room":"chat:1"}`, "error", "auth_required")
	g.exchange(`{"type":"auth","token":"`+h.token("ann", time.Hour, rights)+`"}`, "authenticated", "")
	g.expect("joined")
	g.exchange(`{"type":"auth","token":"`+h.token("bob", time.Hour, rights)+`"}`, "error", "unauthorized")
	g.exchange(`{"type":"auth","token":"`+h.token("ann", -time.Hour, rights)+`"}`, "error", "token_expired")
	g.exchange(`{"type":"join","room":"chat:1"}`, "joined", "")
	g.exchange(`{"type":"auth","token":"`+h.token("ann", time.Hour, `{"join":["user:ann"],"attributes":{"n":1}}`)+`"}`, "authenticated", "")
	if m := g.expect("left"); m["room"] != "chat:1" || m["code"] != "forbidden" {
		t.Error(m)
	}
	var conn *engine.Conn
	for c := range h.srv.Connections() {
		conn = c
	}
	if conn.Attribute("name") != nil || string(conn.Attribute("n")) != "1" {
		t.Error(conn.Attributes())
	}
	late := h.dial(ws.Dialer{}, "")
	late.expect("connected")
	late.exchange(`{"type":"auth","token":"nonsense"}`, "error", "unauthorized")
	if code := late.closed(); code != engine.StatusUnauthorized {
		t.Error(code)
	}

	h = guarded(t, GuardOptions{Auth: Optional, Rules: []Entry{{Match: "public:**", Join: []string{"anyone"}, Publish: []string{"members"}}}})
	g = h.dial(ws.Dialer{}, "")
	g.expect("reconnect_token")
	g.exchange(`{"type":"join","room":"public:1"}`, "joined", "")
	g.exchange(`{"type":"join","room":"chat:1"}`, "error", "forbidden")
	g.exchange(`{"type":"auth","token":"`+h.token("ann", time.Hour, rights)+`"}`, "authenticated", "")
	g.exchange(`{"type":"join","room":"chat:1"}`, "joined", "")
}

// A token with more attributes than a connection may have is refused: in the handshake with a code that a page can see, later so
// that nothing changes.
func TestTooManyAttributes(t *testing.T) {
	h := guarded(t, GuardOptions{Auth: Required}) // attributes_bytes_max is less than a token may have
	own := `{"join":["a"],"attributes":{"name":"Ann"}}`
	large := h.token("ann", time.Hour, `{"attributes":{"big":"`+strings.Repeat("x", 200)+`"}}`)
	if code := h.dial(withHeader("Authorization", "Bearer "+large), "").closed(); code != engine.StatusUnauthorized {
		t.Error(code)
	}
	g := h.dial(withHeader("Authorization", "Bearer "+h.token("ann", time.Hour, own)), "")
	g.expect("reconnect_token")
	g.exchange(`{"type":"auth","token":"`+large+`"}`, "error", "unauthorized")
	for c := range h.srv.Connections() {
		if string(c.Attribute("name")) != `"Ann"` || c.Attribute("big") != nil {
			t.Error(c.Attributes())
		}
	}
	g.exchange(`{"type":"join","room":"a"}`, "joined", "")
}

// The rooms of auto are asked for like those of any join: a rule may close them.
func TestRulesCloseAuto(t *testing.T) {
	h := guarded(t, GuardOptions{Auth: Required, Rules: []Entry{{Match: "vip:*", Join: []string{"nobody"}, Publish: []string{"nobody"}}}})
	g := h.dial(withHeader("Authorization", "Bearer "+h.token("ann", time.Hour, `{"join":["**"],"auto":["vip:1","chat:1"]}`)), "")
	if m := g.expect("joined"); m["room"] != "chat:1" {
		t.Error(m)
	}
}

// What a change of the rules takes away is left at once. A room that a program has put a client into stays: it passes no rule, and
// neither a change nor a renewal takes it away.
func TestRulesChange(t *testing.T) {
	public := func(join string) []Entry {
		return []Entry{{Match: "public:*", Join: []string{join}, Publish: []string{"members"}}}
	}
	h := guarded(t, GuardOptions{Auth: Required, Rules: public("anyone")})
	token := h.token("ann", time.Hour, `{"join":["chat:*"]}`)
	g := h.dial(withHeader("Authorization", "Bearer "+token), "")
	g.expect("connected")
	for _, room := range []string{"public:1", "chat:1"} {
		g.exchange(`{"type":"join","room":"`+room+`"}`, "joined", "")
	}
	for c := range h.srv.Connections() {
		if err := h.srv.Rooms().Join(c, "vip:1"); err != nil {
			t.Fatal(err)
		}
	}
	g.expect("joined")
	rooms := func() string {
		for c := range h.srv.Connections() {
			return fmt.Sprint(slices.Sorted(slices.Values(c.Rooms())))
		}
		return ""
	}
	if err := h.guard.Change(nil, public("nobody")); err != nil {
		t.Fatal(err)
	}
	if m := g.expect("left"); m["room"] != "public:1" || m["code"] != "forbidden" {
		t.Error(m)
	}
	g.exchange(`{"type":"join","room":"public:1"}`, "error", "forbidden")
	g.exchange(`{"type":"auth","token":"`+token+`"}`, "authenticated", "")
	g.exchange(`{"type":"join","room":"vip:1"}`, "joined", "") // no error: it is in
	if got := rooms(); got != "[chat:1 vip:1]" {
		t.Error(got)
	}
	g.exchange(`{"type":"auth","token":"`+h.token("ann", time.Hour, `{}`)+`"}`, "authenticated", "")
	if m := g.expect("left"); m["room"] != "chat:1" {
		t.Error(m)
	}
	if got := rooms(); got != "[vip:1]" {
		t.Error(got)
	}
}

// A revoked token is good no more: its connections are closed with 4001, newcomers with it are refused, a token of later is
// good. It survives a restart.
func TestRevocation(t *testing.T) {
	file := filepath.Join(t.TempDir(), "revoked")
	h := guarded(t, GuardOptions{Auth: Required, File: file, Keeper: true})
	token := h.token("ann", time.Hour, rights)
	g := h.dial(withHeader("Authorization", "Bearer "+token), "")
	g.expect("connected")
	other := h.dial(withHeader("Authorization", "Bearer "+h.token("bob", time.Hour, rights)), "")
	other.expect("connected")
	if n, err := h.guard.RevokeUser(t.Context(), "ann", time.Now().Add(time.Second)); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if code := g.closed(); code != engine.StatusUnauthorized {
		t.Error(code)
	}
	again := guarded(t, GuardOptions{Auth: Required, File: file, Keeper: true})
	for _, where := range []*house{h, again} {
		if code := where.dial(withHeader("Authorization", "Bearer "+token), "").closed(); code != engine.StatusUnauthorized {
			t.Error("after the revocation:", code)
		}
		where.dial(withHeader("Authorization", "Bearer "+h.token("bob", time.Hour, rights)), "").expect("connected")
	}
	other.exchange(`{"type":"ping"}`, "pong", "")
	if err := again.guard.LiftUser(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	again.dial(withHeader("Authorization", "Bearer "+token), "").expect("connected")
	if n, err := again.guard.RevokeID(t.Context(), "jti-bob", time.Now().Add(time.Hour)); err != nil || n != 1 || len(again.guard.Revocations()) != 1 {
		t.Error(n, err, again.guard.Revocations())
	}
	if _, err := again.guard.RevokeID(t.Context(), "jti-bob", time.Now().Add(-time.Hour)); err == nil {
		t.Error("a revocation that is over is taken")
	}
}

// Asking the guard costs no allocation.
func TestGuardAllocatesNothing(t *testing.T) {
	h := guarded(t, GuardOptions{Auth: Required})
	h.dial(withHeader("Authorization", "Bearer "+h.token("ann", time.Hour, rights)), "").expect("joined")
	for c := range h.srv.Connections() {
		if n := testing.AllocsPerRun(100, func() { h.guard.Allow(c, engine.ActJoin, "chat:7", false) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// A check of a connection with a token of three patterns, by the last of four rules.
func BenchmarkGuard(b *testing.B) {
	h := guarded(b, GuardOptions{Auth: Required, Rules: published})
	h.dial(withHeader("Authorization", "Bearer "+h.token("ann", time.Hour, rights)), "").expect("joined")
	for c := range h.srv.Connections() {
		b.ReportAllocs()
		for b.Loop() {
			if h.guard.Allow(c, engine.ActJoin, "chat:7", false).Refuse != nil {
				b.Fatal("forbidden")
			}
		}
	}
}

// A session brings the attributes of the application to its heir, and none of its old token's: the heir has a token of its
// own.
func TestAttributesOfATokenEndWithIt(t *testing.T) {
	h := guarded(t, GuardOptions{Auth: Required})
	dial := func(own string) *guest {
		g := h.dial(ws.Dialer{}, "")
		g.expect("connected")
		g.exchange(`{"type":"auth","token":"`+h.token("ann", time.Hour, own)+`"}`, "authenticated", "")
		return g
	}
	conn := func() (one *engine.Conn) {
		for c := range h.srv.Connections() {
			one = c
		}
		return one
	}
	g := dial(`{"attributes":{"role":"admin","name":"Ann"}}`)
	token, _ := g.expect("reconnect_token")["token"].(string)
	if err := conn().SetAttribute("own", 1); err != nil {
		t.Fatal(err)
	}
	g.conn.Close()
	for until := time.Now().Add(canary.Stretch(patient)); conn() != nil && time.Now().Before(until); {
		<-time.After(time.Millisecond)
	}
	g = dial(`{"attributes":{"name":"Ann"}}`)
	g.exchange(`{"type":"reconnect","token":"`+token+`"}`, "reconnected", "")
	if c := conn(); c.Attribute("role") != nil || string(c.Attribute("name")) != `"Ann"` || string(c.Attribute("own")) != "1" {
		t.Errorf("%s", c.Attributes())
	}
}
