package interop

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	gorilla "github.com/gorilla/websocket"
)

// goExamples builds the examples in Go once, into the folder of the server's binary, which TestMain removes.
var goExamples = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(filepath.Dir(binary), "examples")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir, "./docs/examples/...")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, nil
})

// goExample is the program of an example in Go.
func goExample(t *testing.T, name string) string {
	t.Helper()
	dir, err := goExamples()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// begun is a terminal in which the first steps of docs/backend/start.md are done: up to the secrets, or to the server.
func begun(t *testing.T, serve bool) *terminal {
	t.Helper()
	need(t, "openssl")
	e := openTerminal(t)
	commands := blocks(t, "docs/backend/start.md", "")
	e.enter(commands[1])
	if serve {
		e.enter(commands[2])
		e.serving()
	}
	return e
}

// example types the commands of an example's README, with the texts replaced that differ by test; each must be there.
func (e *terminal) example(name string, changes ...string) (shown string) {
	e.t.Helper()
	list := blocks(e.t, "docs/examples/"+name+"/README.md", "")
	if len(list) != 1 {
		e.t.Fatalf("the README of %s shows %d blocks of commands, want one", name, len(list))
	}
	return e.enter(replaced(e.t, list[0], changes...))
}

// replaced is a text with each second of changes in place of the first, which must be there.
func replaced(t *testing.T, text string, changes ...string) string {
	t.Helper()
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(text, changes[i]) {
			t.Fatalf("there is no %q in\n%s", changes[i], text)
		}
		text = strings.ReplaceAll(text, changes[i], changes[i+1])
	}
	return text
}

// ws is the address of the terminal's server.
func (e *terminal) ws() string { return fmt.Sprintf("ws://127.0.0.1:%d/", e.port) }

var aToken = regexp.MustCompile(`\beyJ[\w-]+\.[\w-]+\.[\w-]+`)

// token has the terminal make a token for a user.
func (e *terminal) token(user string) string {
	e.t.Helper()
	return aToken.FindString(e.enter("bin/parley token --jwt-secret-file secrets/jwt --auth required --user " + user))
}

// dialed is a client that has been greeted.
func dialed(t *testing.T, address string, fields http.Header, subprotocols ...string) *person {
	t.Helper()
	var conn *gorilla.Conn
	eventually(t, address+" accepts", func() (ok bool) {
		c, response, err := (&gorilla.Dialer{Subprotocols: subprotocols}).Dial(address, fields)
		if err != nil && response != nil {
			t.Fatalf("%s: %v, %s", address, err, response.Status)
		}
		conn = c
		return err == nil
	})
	t.Cleanup(func() { conn.Close() })
	p := &person{t: t, c: &gorillaClient{conn}}
	p.id = p.until("connected")["connection_id"].(string)
	p.token = p.until("reconnect_token")["token"].(string)
	return p
}

// asks sends a message and wants an error with a code for it.
func (p *person) asks(message, code string) {
	p.t.Helper()
	p.say("%s", message)
	if m := p.until("error"); m["code"] != code {
		p.t.Errorf("%s is answered %v, want %s", message, m, code)
	}
}

// loggedIn is a browser without JavaScript that has logged in to a page of the examples; name "" for one that has not.
func loggedIn(t *testing.T, page, name string) *http.Client {
	t.Helper()
	v := withCookies(t)
	if name != "" {
		if status, answer := post(t, v, page+"login", "name", name); status/100 != 2 {
			t.Fatalf("the login is answered %d, %v", status, answer)
		}
	}
	return v
}

// fillsIn writes into a field of a page, and sends its form.
func (w *window) fillsIn(field, text string) {
	w.t.Helper()
	w.do(chromedp.WaitVisible(field, chromedp.ByQuery), chromedp.SendKeys(field, text+"\n", chromedp.ByQuery))
}

// In the chats in Node and Python a user logs in, gets a token that allows listening, and speaks through the backend. Browsers see
// texts as texts. The backends refuse strangers, names and texts that are none, and tell no address when Parley is away.
func TestExampleChats(t *testing.T) {
	t.Parallel()
	e := begun(t, true)
	for _, row := range []struct {
		folder, program string
		port            int
	}{{"chat-node", "node", e.web}, {"chat-python", "python3", freePort(t)}} {
		t.Run(row.folder, func(t *testing.T) {
			need(t, row.program)
			page := fmt.Sprintf("http://127.0.0.1:%d/", row.port)
			e.example(row.folder, " 8000 &", fmt.Sprintf(" %d &", row.port))
			answering(t, page)
			answering(t, page+"parley.js")
			ann, listener := listens(t, e, page)
			if row.port == e.web { // the one page that may connect
				chatsInBrowser(t, page, ann, listener)
			}
			refusesInChat(t, page, ann)
			away := fmt.Sprintf("http://127.0.0.1:%d/", freePort(t))
			e.example(row.folder, " 8000 &", " "+strings.Trim(away[17:], "/")+" &", row.program+" docs",
				fmt.Sprintf("PARLEY_URL=http://127.0.0.1:%d %s docs", freePort(t), row.program))
			answering(t, away)
			if status, answer := post(t, loggedIn(t, away, "ann"), away+"say", "text", "x"); status != http.StatusBadGateway || strings.Contains(fmt.Sprint(answer), "127.0.0.1") {
				t.Errorf("without Parley a message is answered %d, %v", status, answer)
			}
		})
	}
	if php := blocks(t, "docs/examples/chat-php/README.md", ""); !slices.Equal(php, blocks(t, "docs/backend/start.md", "")[3:4]) {
		t.Errorf("the README of chat-php shows %q, which is not the step of start.md that TestStart runs", php)
	}
}

// listens logs ann in, and connects with her token.
func listens(t *testing.T, e *terminal, page string) (ann *http.Client, listener *person) {
	t.Helper()
	ann = loggedIn(t, page, "ann")
	status, granted := post(t, ann, page+"token", "", "")
	if status != http.StatusOK || granted["url"] != e.ws() || granted["user"] != "ann" {
		t.Fatalf("the token is answered %d, %v", status, granted)
	}
	token, room := granted["token"].(string), granted["room"].(string)
	if claims := claimed(t, token); claims["sub"] != "ann" || fmt.Sprint(claims["parley"]) != fmt.Sprintf("map[join:[%s] publish:[]]", room) {
		t.Errorf("the token says %v", claims)
	}
	listener = dialed(t, e.ws(), nil, "parley.v1", "parley.token."+token)
	listener.say(`{"type":"join","room":"%s"}`, room)
	listener.until("joined")
	listener.asks(fmt.Sprintf(`{"type":"broadcast","room":"%s","data":1}`, room), "forbidden")
	listener.asks(`{"type":"join","room":"elsewhere"}`, "forbidden")
	return ann, listener
}

// hears wants a text of a user.
func (p *person) hears(from, text string) {
	p.t.Helper()
	if m := p.until("broadcast"); fmt.Sprint(m["data"]) != fmt.Sprint(map[string]any{"from": from, "text": text}) {
		p.t.Errorf("a member got %v, want %q of %s", m, text, from)
	}
}

func chatsInBrowser(t *testing.T, page string, ann *http.Client, listener *person) {
	bob := browse(t, page)
	bob.fillsIn("#login input", "no name")
	bob.sees("a name has 1 to 32 letters and digits")
	bob.evaluate("document.getElementById('login').reset()")
	bob.fillsIn("#login input", "bob")
	bob.sees("2 here")
	if m := listener.until("member_joined"); m["user"] != "bob" {
		t.Errorf("%v", m)
	}
	for _, text := range []string{difficult, injection} {
		post(t, ann, page+"say", "text", text)
		listener.hears("ann", text)
		bob.sees("ann: " + text)
	}
	if title := bob.evaluate("document.title"); title != "Chat" {
		t.Errorf("the title is %q: a message was taken for HTML", title)
	}
	bob.do(chromedp.Reload()) // the login and the session stay
	bob.becomes("document.getElementById('state').textContent", "bob: Messages come and go.")
	bob.fillsIn("#say input", "from the page")
	listener.hears("bob", "from the page")
	bob.sees("bob: from the page")
	bob.photograph("example-chat")
}

func refusesInChat(t *testing.T, page string, ann *http.Client) {
	t.Helper()
	stranger := loggedIn(t, page, "")
	forger := loggedIn(t, page, "")
	address, _ := url.Parse(page)
	forger.Jar.SetCookies(address, []*http.Cookie{{Name: "chat", Value: "ann." + strings.Repeat("A", 43)}})
	for _, c := range []struct {
		client             *http.Client
		path, field, value string
		status             int
	}{
		{stranger, "say", "text", "hello", http.StatusUnauthorized},
		{stranger, "token", "", "", http.StatusUnauthorized},
		{forger, "token", "", "", http.StatusUnauthorized},
		{stranger, "login", "name", "<b>", http.StatusBadRequest},
		{stranger, "login", "name", "ann\n", http.StatusBadRequest},
		{ann, "say", "text", " ", http.StatusBadRequest},
		{ann, "say", "text", strings.Repeat("x", 501), http.StatusBadRequest},
		{ann, "backend", "x", "x", http.StatusNotFound},
	} {
		if status, answer := post(t, c.client, page+c.path, c.field, c.value); status != c.status {
			t.Errorf("%s of %s=%.20q is answered %d, %v, want %d", c.path, c.field, c.value, status, answer, c.status)
		}
	}
	for _, path := range []string{"chat.mjs", "..%2fchat.mjs", "constructor", "say"} {
		response, err := stranger.Get(page + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("%s is answered %s", path, response.Status)
		}
	}
}

// In the chat in Go the cookie of the login says who a connection is. Pages of other sites, strangers, other rooms, and what is no text
// are refused.
func TestExampleChatGo(t *testing.T) {
	t.Parallel()
	e := openTerminal(t)
	script, err := filepath.Abs(filepath.Join("..", "..", "engine", "admin", "page", "parley.js"))
	if err != nil {
		t.Fatal(err)
	}
	e.enter("export PARLEY_JS=" + script)
	e.example("chat-go", "go run ./docs/examples/chat-go", fmt.Sprintf("%s -ws %d -http %d", goExample(t, "chat-go"), e.port, e.web))
	page := fmt.Sprintf("http://127.0.0.1:%d/", e.web)
	answering(t, page)
	v := loggedIn(t, page, "bob")
	if status, where := fetch(t, v, page+"where"); status != http.StatusOK || where["url"] != e.ws() || where["user"] != "bob" {
		t.Errorf("where: %d, %v", status, where)
	}
	if status, answer := post(t, loggedIn(t, page, ""), page+"login", "name", "<b>"); status != http.StatusBadRequest {
		t.Errorf("a name that is none is answered %d, %v", status, answer)
	}
	address, _ := url.Parse(page)
	fields := http.Header{"Cookie": {v.Jar.Cookies(address)[0].String()}, "Origin": {strings.TrimSuffix(page, "/")}}
	bob := dialed(t, e.ws(), fields)
	bob.say(`{"type":"join","room":"chat"}`)
	bob.until("joined")

	ann := browse(t, page)
	ann.fillsIn("#login input", "ann")
	if m := bob.until("member_joined"); m["user"] != "ann" {
		t.Errorf("%v", m)
	}
	bob.say(`{"type":"broadcast","room":"chat","data":{"text":"hello"}}`)
	ann.sees("bob: hello")
	ann.fillsIn("#say input", injection)
	if m := bob.until("broadcast"); m["user"] != "ann" || fmt.Sprint(m["data"]) != fmt.Sprint(map[string]any{"text": injection}) {
		t.Errorf("%v", m)
	}
	ann.sees("(to 1)")

	bob.asks(`{"type":"join","room":"den"}`, "forbidden")
	bob.asks(`{"type":"broadcast","room":"chat","data":{"text":""}}`, "invalid_message")
	bob.asks(`{"type":"broadcast","room":"chat","data":7}`, "invalid_message")
	for range 6 {
		bob.say(`{"type":"broadcast","room":"chat","data":{"text":"again"}}`)
	}
	if m := bob.until("error"); m["code"] != "rate_limited" {
		t.Errorf("%v", m)
	}
	if knock(t, e.ws(), "https://evil.example") {
		t.Error("the page of another site may connect")
	}
	fields.Set("Cookie", "chat=bob."+strings.Repeat("A", 43))
	conn, _, err := gorilla.DefaultDialer.Dial(e.ws(), fields)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(&person{t: t, c: &gorillaClient{conn}}).refused()
}

// The page of presence shows users with the number of their connections, as they come and go.
func TestExamplePresence(t *testing.T) {
	t.Parallel()
	need(t, "node")
	e := begun(t, true)
	page := fmt.Sprintf("http://127.0.0.1:%d/", e.web)
	e.example("presence", " 8000 ", fmt.Sprintf(" %d ", e.web))
	answering(t, page)
	var devices []*person
	_, granted := post(t, loggedIn(t, page, "bob"), page+"token", "", "")
	enter := func() {
		p := dialed(t, e.ws(), nil, "parley.v1", "parley.token."+granted["token"].(string))
		p.say(`{"type":"join","room":"office"}`)
		p.until("joined")
		devices = append(devices, p)
	}
	enter()
	ann := browse(t, page)
	ann.fillsIn("#login input", "ann")
	shows := func(want string) {
		t.Helper()
		ann.becomes("[...document.querySelectorAll('#users li')].map((l) => l.textContent).join('|')", want)
	}
	shows("ann|bob")
	enter()
	shows("ann|bob (2 connections)")
	ann.photograph("example-presence")
	devices[0].c.reset()
	shows("ann|bob")
	devices[1].say(`{"type":"leave","room":"office"}`)
	shows("ann")
}

// Every example has a README of at most 15 lines, a row in the index, and programs of at most 150 lines.
func TestExamplesAreSmall(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "examples")
	index, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	folders, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		if f.IsDir() && !strings.Contains(string(index), "| ["+f.Name()+"]("+f.Name()+"/README.md) | ") {
			t.Errorf("%s has no row in docs/examples/README.md", f.Name())
		}
	}
	n := 0
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Dir(path) == dir {
			return err
		}
		text, err := os.ReadFile(path)
		most := 150
		if d.Name() == "README.md" {
			n++
			most = 15
		}
		if lines := strings.Count(string(text), "\n"); lines > most {
			t.Errorf("%s has %d lines: it should have at most %d", path, lines, most)
		}
		return err
	})
	if err != nil || n != len(folders)-1 {
		t.Errorf("%d READMEs in %d folders: %v", n, len(folders)-1, err)
	}
}
