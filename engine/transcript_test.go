package engine_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/engine/api"
	"github.com/parleyd/parley/engine/canary"
)

var (
	placeholder = regexp.MustCompile(`(ID|TOKEN|EPOCH)\((\w+)\)|EPOCH|TIME|TEXT|SECONDS`)
	jwt         = regexp.MustCompile(`JWT\((\w+)\)`)
	life        = regexp.MustCompile(`NOW\+(\d+)`)
)

// patience is how long a test waits for what must come, on a machine that idles.
const patience = 30 * time.Second

// stage plays one transcript.
type stage struct {
	t      *testing.T
	s      *engine.Server
	guard  *access.Guard
	api    *api.Server
	key    string
	secret []byte
	claims map[string]string // of the access tokens, by name
	answer string            // of the API
	actors map[string]*actor
	values map[string]string // what placeholders stood for
	doubts map[string]error  // by client: what docs/asyncapi.yaml says against the message that it has sent last
}

// actor is a client. Its input is read past the handshake's.
type actor struct {
	net.Conn
	in    io.Reader
	stops bool // it has stopped reading once, and so gets fillers
}

func (a *actor) Read(p []byte) (int, error) { return a.in.Read(p) }

// setting is the line of a transcript that says how its server is configured.
type setting struct {
	Auth      string         `json:"auth"`
	JWTGrace  int            `json:"jwt_grace"` // seconds
	ShowUsers *bool          `json:"show_users"`
	Rooms     []access.Entry `json:"rooms"`
	History   []string       `json:"history"`
}

// Every transcript in the documents of the wire protocol happens as written, and each message in it is as docs/asyncapi.yaml says.
func TestTranscripts(t *testing.T) {
	for page, least := range map[string]int{"wire.md": 15, "clients.md": 4} {
		text, err := os.ReadFile("../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := strings.Split(string(text), "```transcript\n")[1:]
		if len(blocks) < least {
			t.Fatalf("%s: %d transcripts found", page, len(blocks))
		}
		for _, block := range blocks {
			script, _, _ := strings.Cut(block, "```")
			t.Run(page, func(t *testing.T) {
				t.Parallel() // some wait for the ends of tokens
				newStage(t).perform(script)
			})
		}
	}
}

func newStage(t *testing.T) *stage {
	return &stage{t: t, secret: []byte(strings.Repeat("secret", 8)), claims: map[string]string{}, actors: map[string]*actor{}, values: map[string]string{}, doubts: map[string]error{}}
}

func (st *stage) perform(script string) {
	st.t.Helper()
	how, rest, configured := strings.Cut(script, "\n")
	if how, configured = strings.CutPrefix(how, "server has "); configured {
		script = rest
	} else {
		how = "{}"
	}
	st.serve(how)
	for line := range strings.Lines(script) {
		st.play(strings.TrimSpace(line))
	}
	for who, doubt := range st.doubts {
		st.t.Errorf("%s has sent a message that docs/asyncapi.yaml does not allow, and the server did not refuse it: %v", who, doubt)
	}
}

// malformed are the codes with which the server refuses a message that its schema does not allow.
var malformed = regexp.MustCompile(`^\{"type":"error","code":"(invalid_json|invalid_message|data_required|room_required|unknown_type)"`)

// heard holds a message of the server against docs/asyncapi.yaml. A refusal explains a doubt.
func (st *stage) heard(who string, got []byte) {
	st.t.Helper()
	if err := wire(st.t).hold("server", got); err != nil {
		st.t.Errorf("docs/asyncapi.yaml does not allow what the server says: %v", err)
	}
	if malformed.Match(got) {
		delete(st.doubts, who)
	}
}

// says sends a message, and holds it against docs/asyncapi.yaml.
func (st *stage) says(c *actor, who, text string) {
	st.t.Helper()
	if err := wire(st.t).hold("client", []byte(text)); err != nil {
		st.doubts[who] = err
	}
	st.must(wsutil.WriteClientText(c, []byte(text)))
}

// serve starts a server, with its API for backends.
func (st *stage) serve(how string) {
	st.t.Helper()
	given := setting{JWTGrace: 30}
	cfg := engine.DefaultConfig()
	cfg.Port, cfg.Loops, cfg.Subprotocols = -1, 2, []string{access.Subprotocol}
	cfg.HeartbeatInterval, cfg.HeartbeatTimeout = time.Hour, 2*time.Hour // no ping while a test waits
	cfg.ReceiptInterval = time.Hour
	var key api.KeyEntry
	err := json.Unmarshal([]byte(how), &given)
	st.must(err)
	cfg.History = given.History
	cfg.HideUsers = given.ShowUsers != nil && !*given.ShowUsers
	st.s, err = engine.New(cfg, engine.WithLogger(slog.New(slog.DiscardHandler)))
	st.must(err)
	options := access.GuardOptions{Auth: map[string]access.Auth{"optional": access.Optional, "required": access.Required}[given.Auth],
		Rules: given.Rooms, Grace: longer(time.Duration(given.JWTGrace) * time.Second), Log: slog.New(slog.DiscardHandler)}
	options.Verifier, err = access.NewVerifier(access.Options{Secret: st.secret})
	st.must(err)
	st.guard, err = access.NewGuard(options)
	st.must(err)
	if given.Auth != "" {
		st.guard.Install(st.s)
	}
	st.key, key, err = api.CreateKey("backend")
	st.must(err)
	key.Scopes = []string{"all"}
	keys, err := api.CompileKeys([]api.KeyEntry{key})
	st.must(err)
	st.api = api.New(st.s, api.Options{Keys: keys, Log: slog.New(slog.DiscardHandler)})
	st.must(st.s.Start())
	st.t.Cleanup(st.shutDown)
}

func (st *stage) must(err error) {
	st.t.Helper()
	if err != nil {
		st.t.Fatal(err)
	}
}

func (st *stage) shutDown() {
	ctx, cancel := context.WithTimeout(context.Background(), canary.Stretch(patience))
	defer cancel()
	st.s.Shutdown(ctx)
}

func (st *stage) play(line string) {
	st.t.Helper()
	who, rest, _ := strings.Cut(line, " ")
	verb, argument, _ := strings.Cut(rest, " ")
	name, isToken := strings.CutPrefix(who, "JWT(")
	switch {
	case isToken && verb == "has":
		st.claims[strings.TrimSuffix(name, ")")] = argument
	case line == "server shuts down":
		go st.shutDown()
	case who == "backend":
		st.backend(verb, argument)
	case who == "application":
		st.application(verb, argument)
	case verb == "connects":
		st.actors[who] = st.dial(strings.TrimPrefix(argument, "with "))
	case st.actors[who] == nil:
		st.t.Fatalf("%q is no line of a transcript", line)
	default:
		st.client(st.actors[who], line)
	}
}

// backend plays a line of the program that uses the API.
func (st *stage) backend(verb, argument string) {
	st.t.Helper()
	switch verb {
	case "->":
		path, body, _ := strings.Cut(argument, " ")
		r := httptest.NewRequestWithContext(st.t.Context(), "POST", path, strings.NewReader(st.filled(body)))
		r.Header.Set("Authorization", "Bearer "+st.key)
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		st.api.ServeHTTP(w, r)
		st.answer = strings.TrimSpace(w.Body.String())
	case "<-":
		st.match("backend <- "+argument, argument, st.answer)
	case "revokes":
		if _, err := st.guard.RevokeUser(st.t.Context(), argument, time.Now().Add(time.Minute)); err != nil {
			st.t.Fatal(err)
		}
	default:
		st.t.Fatalf("a backend does not %q", verb)
	}
}

// application plays a line of the program that the server is part of.
func (st *stage) application(verb, argument string) {
	st.t.Helper()
	room, rest, _ := strings.Cut(argument, " ")
	d := json.NewDecoder(strings.NewReader(st.filled(rest)))
	switch verb {
	case "->":
		var m json.RawMessage
		var how struct {
			Except []string `json:"except"`
			Key    string   `json:"key"`
		}
		st.must(d.Decode(&m))
		if d.More() {
			st.must(d.Decode(&how))
		}
		st.must(st.s.Publish(room, m, engine.BroadcastOptions{Except: how.Except, Key: how.Key}))
	case "creates":
		var o engine.HistoryOptions
		st.must(d.Decode(&o))
		st.must(st.s.Rooms().Create(room, engine.RoomOptions{History: &o}))
	case "deletes":
		if !st.s.Rooms().Delete(room) {
			st.t.Fatalf("there is no room %s", room)
		}
	default:
		st.t.Fatalf("an application does not %q", verb)
	}
}

// filler is what a client that does not read is sent, until so much waits for it that it cannot be given more.
var filler = []byte(`{"type":"filler"}`)

// fill makes a client that has stopped reading one that cannot keep up.
func (st *stage) fill(who string) {
	st.t.Helper()
	m := struct {
		Type string `json:"type"`
		Pad  string `json:"pad"`
	}{"filler", strings.Repeat("x", 32<<10)}
	for st.backlog(who) < 128<<10 {
		st.s.SendTo(st.id(who), m)
	}
}

// backlog is what waits for a client. Its loop has taken everything that was posted before.
func (st *stage) backlog(who string) int {
	st.t.Helper()
	f, err := st.s.Everywhere().ConnectionFacts(st.t.Context(), st.id(who))
	st.must(err)
	return f.BacklogBytes
}

func (st *stage) id(who string) string { return strings.Trim(st.values["ID("+who+")"], `"`) }

// client plays a line of a client that has connected.
func (st *stage) client(c *actor, line string) {
	st.t.Helper()
	who, rest, _ := strings.Cut(line, " ")
	verb, argument, _ := strings.Cut(rest, " ")
	switch verb {
	case "drops":
		c.Close()
		if !canary.Wait(patience, func() bool {
			_, err := st.s.Everywhere().ConnectionFacts(st.t.Context(), st.id(who))
			return errors.Is(err, engine.ErrConnectionUnknown)
		}) {
			st.t.Fatalf("%s: the server does not see it", line)
		}
	case "closed":
		if code := c.closed(st.t); argument != strconv.Itoa(int(code)) {
			st.t.Fatalf("%s: closed with %d", line, code)
		}
	case "->":
		st.says(c, who, st.filled(argument))
	case "sends":
		data, err := hex.DecodeString(strings.TrimPrefix(argument, "binary "))
		st.must(err)
		st.must(wsutil.WriteClientBinary(c, data))
	case "<-":
		c.SetReadDeadline(time.Now().Add(canary.Stretch(patience)))
		got, _, err := wsutil.ReadServerData(c)
		for c.stops && err == nil && bytes.HasPrefix(got, filler[:len(filler)-1]) {
			got, _, err = wsutil.ReadServerData(c)
		}
		if err != nil {
			st.t.Fatalf("%s: %v", line, err)
		}
		st.match(line, argument, string(got))
		st.heard(who, got)
	case "stops":
		c.stops = true
		st.fill(who)
	case "reads":
		st.backlog(who) // its loop has taken everything that was published
	default:
		st.t.Fatalf("%q is no line of a transcript", line)
	}
}

// dial connects a client, perhaps with a header field.
func (st *stage) dial(field string) *actor {
	st.t.Helper()
	var d ws.Dialer
	switch name, value, _ := strings.Cut(st.filled(field), ": "); name {
	case "":
	case "Sec-WebSocket-Protocol":
		d.Protocols = strings.Split(value, ", ")
	default:
		d.Header = ws.HandshakeHeaderString(name + ": " + value + "\r\n")
	}
	conn, early, _, err := d.Dial(st.t.Context(), "ws://"+st.s.Addr().String()+"/")
	st.must(err)
	st.t.Cleanup(func() { conn.Close() })
	if early != nil {
		return &actor{Conn: conn, in: early}
	}
	return &actor{Conn: conn, in: conn}
}

// closed reads up to the close frame, which must come next. gobwas's own reader knows fewer codes.
func (a *actor) closed(t *testing.T) ws.StatusCode {
	t.Helper()
	a.SetReadDeadline(time.Now().Add(canary.Stretch(patience)))
	for {
		f, err := ws.ReadFrame(a)
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		switch f.Header.OpCode {
		case ws.OpText:
			t.Fatalf("%s comes before the close frame", f.Payload)
		case ws.OpClose:
			code, _ := ws.ParseCloseFrameData(f.Payload)
			return code
		}
	}
}

// filled puts in what placeholders stood for, and access tokens, which are signed now. On a slow machine they live longer.
func (st *stage) filled(text string) string {
	text = placeholder.ReplaceAllStringFunc(text, func(p string) string { return st.values[p] })
	return jwt.ReplaceAllStringFunc(text, func(p string) string {
		claims := st.claims[jwt.FindStringSubmatch(p)[1]]
		return st.signed(life.ReplaceAllStringFunc(claims, func(at string) string {
			seconds, _ := time.ParseDuration(life.FindStringSubmatch(at)[1] + "s")
			return strconv.FormatInt(time.Now().Add(longer(seconds)).Unix(), 10)
		}))
	})
}

// longer stretches a time in which a client must have said something, up to four times: a test waits until it is over.
func longer(d time.Duration) time.Duration { return min(canary.Stretch(d), 4*d) }

// signed makes an access token of claims.
func (st *stage) signed(claims string) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	h := hmac.New(sha256.New, st.secret)
	fmt.Fprint(h, text)
	return text + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// match holds what came against what is written; a placeholder must stand for the same thing each time.
func (st *stage) match(line, want, got string) {
	st.t.Helper()
	var pattern strings.Builder
	var names []string
	last := 0
	for _, at := range placeholder.FindAllStringIndex(want, -1) {
		name := want[at[0]:at[1]]
		pattern.WriteString(regexp.QuoteMeta(want[last:at[0]]))
		names = append(names, name)
		switch {
		case strings.HasPrefix(name, "ID"):
			pattern.WriteString(`("[0-9a-f]{24}")`)
		case strings.HasPrefix(name, "TOKEN"):
			pattern.WriteString(`("[\w-]{22}")`)
		case name == "TIME":
			pattern.WriteString(`(\d{10})`)
		case name == "SECONDS":
			pattern.WriteString(`([1-9]\d*)`)
		case strings.HasPrefix(name, "EPOCH"):
			pattern.WriteString(`("[\w-]{1,22}")`)
		default:
			pattern.WriteString(`("(?:[^"\\]|\\.)+")`)
		}
		last = at[1]
	}
	pattern.WriteString(regexp.QuoteMeta(want[last:]))
	found := regexp.MustCompile("^" + pattern.String() + "$").FindStringSubmatch(got)
	if found == nil {
		st.t.Fatalf("%s\n got %s", line, got)
	}
	for i, name := range names {
		if name == "TIME" || name == "TEXT" || name == "SECONDS" {
			continue
		}
		if old, known := st.values[name]; known && old != found[i+1] {
			st.t.Fatalf("%s\n got %s\n%s was %s", line, got, name, old)
		}
		st.values[name] = found[i+1]
	}
}
