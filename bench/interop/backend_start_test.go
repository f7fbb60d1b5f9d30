package interop

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	gorilla "github.com/gorilla/websocket"
)

// withTokens starts a server that demands tokens.
func withTokens(t *testing.T, scopes string, args ...string) *backend {
	t.Helper()
	b := secretBackend(t)
	return b.start(scopes, append([]string{"--auth", "required", "--jwt-secret-file", b.secret}, args...)...)
}

// tokenLanguages are the languages that make tokens.
var tokenLanguages = []string{"php", "python", "node", "go"}

// claimed are the claims of a token, which is not verified.
func claimed(t *testing.T, token string) (claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no token", token)
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(raw, &claims)
	}
	if err != nil {
		t.Fatal(token, err)
	}
	return claims
}

// The tokens of all languages name the user as it was given, end after 15 minutes, and allow rooms of the chat alone.
func TestExamplesClaims(t *testing.T) {
	b := secretBackend(t)
	for _, language := range tokenLanguages {
		for _, user := range []string{"42", `"},"parley":{"join":["**"]} ` + difficult} {
			r := b.example(t, language, "token", user)
			if r.code != 0 || r.err != "" {
				t.Fatalf("%s: %+v", language, r)
			}
			claims := claimed(t, r.out)
			life := claims["exp"].(float64) - float64(time.Now().Unix())
			if claims["sub"] != user || life > 900 || life < 900-patient.Seconds() || fmt.Sprint(claims["parley"]) != "map[join:[chat:*] publish:[chat:*]]" {
				t.Errorf("%s: %v", language, claims)
			}
		}
		absent := *b
		absent.secret += ".absent"
		if r := absent.example(t, language, "token", "42"); r.code != 1 || r.out != "" || r.err == "" {
			t.Errorf("%s without its secret: %+v", language, r)
		}
	}
}

// bearer is a client that shows its token as a browser does.
func (b *backend) bearer(t *testing.T, token string) (*person, *http.Response) {
	t.Helper()
	dialer := gorilla.Dialer{Subprotocols: []string{"parley.v1", "parley.token." + token}}
	conn, response, err := dialer.Dial(b.ws, nil)
	if err != nil {
		return nil, response
	}
	t.Cleanup(func() { conn.Close() })
	return &person{t: t, c: &gorillaClient{conn}}, response
}

// A client comes in with a token of each language, may enter and speak where the token says, and nowhere else; a token that
// another secret signed does not let it in.
func TestExamplesTokens(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{1, 2} {
		b := withTokens(t, "read", "--processes", fmt.Sprint(processes))
		stranger := secretBackend(t)
		writeFile(t, stranger.secret, strings.Repeat("another secret of many bytes", 3))
		for _, language := range tokenLanguages {
			user := language + " " + difficult
			p, response := b.bearer(t, b.example(t, language, "token", user).out)
			if p == nil {
				t.Fatalf("%s: %v", language, response)
			}
			if got := response.Header.Get("Sec-WebSocket-Protocol"); got != "parley.v1" {
				t.Errorf("%s: the subprotocol is %q", language, got)
			}
			if m := p.until("connected"); m["user"] != user {
				t.Errorf("%s: the user is %v", language, m)
			}
			p.say(`{"type":"join","room":"vip"}`)
			if m := p.until("error"); m["code"] != "forbidden" {
				t.Errorf("%s: a room that the token does not allow is answered %v", language, m)
			}
			p.say(`{"type":"join","room":"chat:1"}`)
			p.until("joined")
			p.say(`{"type":"broadcast","room":"chat:1","data":1}`)
			p.until("broadcast_sent")
			if p, response = b.bearer(t, stranger.example(t, language, "token", user).out); p == nil {
				t.Fatalf("%s: %v", language, response)
			}
			p.refused()
		}
	}
}

// refused wants the connection to be closed with 4001, before a greeting.
func (p *person) refused() {
	p.t.Helper()
	raw, err := p.c.read()
	for err == nil && !strings.Contains(string(raw), `"connected"`) {
		raw, err = p.c.read()
	}
	if !gorilla.IsCloseError(err, 4001) {
		p.t.Errorf("a token of a stranger is answered %s, %v", raw, err)
	}
}

// Each language's example lists all members of a room that has more of them than a page, with their users.
func TestExamplesMembers(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{1, 2} {
		b := withTokens(t, "read", "--processes", fmt.Sprint(processes))
		token := b.example(t, "node", "token", "42").out
		want := map[string]bool{}
		for range 105 {
			p, response := b.bearer(t, token)
			if p == nil {
				t.Fatal(response)
			}
			want[p.until("connected")["connection_id"].(string)+" 42"] = true
			p.say(`{"type":"join","room":"chat:1"}`)
			p.until("joined")
		}
		for language := range languages {
			if language == "curl" {
				continue // it shows one page, as the server gave it
			}
			r := b.example(t, language, "members", "chat:1")
			got := map[string]bool{}
			for line := range strings.Lines(r.out) {
				got[strings.TrimSpace(line)] = want[strings.TrimSpace(line)]
			}
			if r.code != 0 || r.err != "" || len(got) != 105 || strings.Contains(fmt.Sprint(got), "false") {
				t.Errorf("%s, %d processes: %d members: %+v", language, processes, len(got), r)
			}
		}
		if r := b.example(t, "curl", "members", "chat:1"); r.code != 0 || !strings.Contains(r.out, `"next":`) || !strings.Contains(r.out, `"user":"42"`) {
			t.Errorf("curl: %+v", r)
		}
	}
}

// browse opens an address in a browser of its own, in which no other tab is.
func browse(t *testing.T, address string) *window {
	t.Helper()
	w := &window{t, chromium(t)}
	w.do(chromedp.Navigate(address))
	return w
}

// logIn fills in the form of a page of the examples, and waits until the page is online.
func (w *window) logIn(field, name string) {
	w.t.Helper()
	w.do(chromedp.WaitVisible(field, chromedp.ByQuery), chromedp.SendKeys(field, name+"\n", chromedp.ByQuery))
	w.do(chromedp.WaitVisible("#log p", chromedp.ByQuery))
	w.t.Logf("%s: %s", name, w.text("#state"))
}

// types says something in a page of the examples.
func (w *window) types(text string) {
	w.t.Helper()
	w.do(chromedp.SendKeys("#text", text+"\n", chromedp.ByQuery))
}

// renews lets a page of the examples do what it does when its token is about to end, and waits for the server's answer.
func (w *window) renews() {
	w.t.Helper()
	w.do(chromedp.Evaluate(`window.answered = [];
ws.addEventListener('message', ({data}) => window.answered.push(JSON.parse(data).type));
on.auth_expiring({type: 'auth_expiring', expires_in: 60}); true`, nil))
	w.has("answered", "authenticated")
}

const injection = `<img src=x onerror="document.title='taken'">`

// The commands of docs/backend/start.md, as they stand there, lead to a chat between two browsers and PHP.
func TestStart(t *testing.T) {
	t.Parallel()
	need(t, "php")
	need(t, "openssl")
	e := openTerminal(t)
	commands := blocks(t, "docs/backend/start.md", "")
	if strings.TrimSpace(commands[0]) != "make build" {
		t.Fatalf("the first command is %q", commands[0])
	}
	e.enter(commands[1])
	e.enter(commands[2])
	e.serving()
	e.enter(commands[3])
	page := fmt.Sprintf("http://127.0.0.1:%d/", e.web)
	answering(t, page)
	ann, bob := browse(t, page), browse(t, page)
	ann.logIn("[name=login]", "ann")
	bob.logIn("[name=login]", "bob")
	ann.sees(" is here")
	ann.types(injection)
	bob.sees("ann: " + injection)
	bob.types("hello ann")
	ann.sees("bob: hello ann")
	if title := bob.evaluate("document.title"); title != "Chat" {
		t.Errorf("the title is %q: a message was taken for HTML", title)
	}
	ann.renews()
	shown := e.enter(commands[4])
	ann.sees("the shop: The shop closes in five minutes.")
	bob.sees("the shop: The shop closes in five minutes.")
	if !strings.Contains(shown, " ann\n") || !strings.Contains(shown, " bob\n") || strings.Count(shown, "\n") != 3 {
		t.Errorf("the script shows %q", shown)
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs/backend/start.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, command, _ := strings.Cut(string(text), "| no message, and no error | `")
	command, _, _ = strings.Cut(command, "`")
	if shown := e.enter(command); strings.TrimSpace(shown) != "queued for 2 connections" {
		t.Errorf("%s: %q", command, shown)
	}
	ann.sees("me: hello")
}

// answering waits until a page is there.
func answering(t *testing.T, page string) {
	t.Helper()
	eventually(t, page+" answers", func() bool {
		response, err := http.Get(page)
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

// servePage runs a server of a page of the examples.
func (b *backend) servePage(t *testing.T, words ...string) (page string) {
	t.Helper()
	port := freePort(t)
	for i := range words {
		words[i] = strings.ReplaceAll(words[i], "{}", fmt.Sprint(port))
	}
	cmd := exec.Command(need(t, words[0]), words[1:]...)
	cmd.Dir, cmd.Env = examples(t), b.environment()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	page = fmt.Sprintf("http://127.0.0.1:%d/", port)
	answering(t, page)
	return page
}

// phpPage runs the chat page of PHP, with sessions in a directory of the test.
func (b *backend) phpPage(t *testing.T) string {
	t.Helper()
	return b.servePage(t, "php", "-d", "session.save_path="+b.dir, "-S", "127.0.0.1:{}", "php/index.php")
}

// withCookies is a browser without JavaScript.
func withCookies(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar}
}

// visitor is a browser without JavaScript, with cookies.
func visitor(t *testing.T, name, page string) *http.Client {
	t.Helper()
	v := withCookies(t)
	if name != "" {
		if status, _ := post(t, v, page, "login", name); status != http.StatusOK {
			t.Fatalf("the login is answered %d", status)
		}
	}
	return v
}

// post sends a field of a form; the answer is decoded if it is JSON.
func post(t *testing.T, v *http.Client, page, field, value string) (status int, answer map[string]any) {
	t.Helper()
	response, err := v.PostForm(page, url.Values{field: {value}})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	json.NewDecoder(response.Body).Decode(&answer)
	return response.StatusCode, answer
}

// What a user says to the page of PHP reaches members with the name of the session. The page refuses strangers, names that
// are none, texts that are none, and serves no other file; if Parley is away, it says so and tells no secret.
func TestPHPPage(t *testing.T) {
	b := serveBackends(t, "publish")
	people := b.listeners(t, "chat:1", 1)
	page := b.phpPage(t)
	ann := visitor(t, "ann", page)
	if status, answer := post(t, ann, page, "say", difficult); status != http.StatusOK {
		t.Errorf("a message is answered %d, %v", status, answer)
	}
	for _, p := range people {
		if m := p.until("broadcast"); fmt.Sprint(m["data"]) != fmt.Sprint(map[string]any{"from": "ann", "text": difficult}) {
			t.Errorf("a member got %v", m)
		}
	}
	for _, c := range []struct {
		client       *http.Client
		field, value string
		status       int
		code         string
	}{
		{visitor(t, "", page), "say", "hello", http.StatusUnauthorized, "login"},
		{visitor(t, "", page), "login", "<b>", http.StatusBadRequest, "name"},
		{visitor(t, "", page), "login[]", "ann", http.StatusBadRequest, "name"},
		{visitor(t, "", page), "login", "ann\n", http.StatusBadRequest, "name"},
		{ann, "say", "", http.StatusBadRequest, "text"},
		{ann, "say", "\xff", http.StatusBadRequest, "text"},
		{ann, "say", strings.Repeat("x", 2001), http.StatusBadRequest, "text"},
		{ann, "say[]", "x", http.StatusBadRequest, "text"},
	} {
		if status, answer := post(t, c.client, page, c.field, c.value); status != c.status || answer["code"] != c.code {
			t.Errorf("%s=%.20q is answered %d, %v", c.field, c.value, status, answer)
		}
	}
	status, token := fetch(t, ann, page+"?token")
	if claims := claimed(t, token["token"].(string)); status != http.StatusOK || token["url"] != b.ws || claims["sub"] != "ann" {
		t.Errorf("the token is answered %d, %v", status, token)
	}
	if status, answer := fetch(t, visitor(t, "", page), page+"?token"); status != http.StatusUnauthorized || answer["token"] != nil {
		t.Errorf("a stranger's token is answered %d, %v", status, answer)
	}
	away := *b
	away.url = fmt.Sprintf("http://127.0.0.1:%d", freePort(t))
	page = away.phpPage(t)
	if status, answer := post(t, visitor(t, "ann", page), page, "say", "x"); status != http.StatusBadGateway || answer["code"] != "unreachable" || strings.Contains(fmt.Sprint(answer), "127.0.0.1") {
		t.Errorf("without Parley a message is answered %d, %v", status, answer)
	}
}

// fetch is a GET whose answer is JSON.
func fetch(t *testing.T, v *http.Client, address string) (status int, answer map[string]any) {
	t.Helper()
	response, err := v.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

// Two browsers with tokens of Node speak with each other, on one process and on two; a browser that is cut off comes back
// with its session. A page names a speaker by its user where the server says it, else by the connection.
func TestBrowserPage(t *testing.T) {
	t.Parallel()
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint("processes ", processes), func(t *testing.T) {
			b := withTokens(t, "publish", "--processes", fmt.Sprint(processes))
			page := b.servePage(t, "node", "node/serve.mjs", "{}")
			ann, bob := browse(t, page), browse(t, page)
			ann.logIn("#name", "ann")
			bob.logIn("#name", "bob")
			ann.sees(" is here")
			ann.types(injection)
			bob.sees(": " + injection)
			if title := bob.evaluate("document.title"); title != "Chat with a token" {
				t.Errorf("the title is %q: a message was taken for HTML", title)
			}
			bob.renews()
			bob.do(chromedp.Evaluate("ws.close()", nil))
			bob.sees("back in chat:1")
			bob.types("here again")
			ann.sees(": here again")
			if r := b.example(t, "python", "publish", "chat:1", "from Python"); r.code != 0 {
				t.Errorf("%+v", r)
			}
			ann.sees("the backend: from Python")
			bob.sees("the backend: from Python")
			if !strings.Contains(bob.evaluate("ws.protocol"), "parley.v1") {
				t.Error("the subprotocol is not parley.v1")
			}
		})
	}
}

// The page of Node gives no token to a name that is none.
func TestBrowserPageRefuses(t *testing.T) {
	b := secretBackend(t)
	page := b.servePage(t, "node", "node/serve.mjs", "{}")
	w := browse(t, page)
	w.do(chromedp.SendKeys("#name", "no name\n", chromedp.ByQuery))
	w.becomes("$('state').textContent", "a name has 1 to 32 letters and digits")
	for _, path := range []string{"token", "backend.mjs", "../node/backend.mjs"} {
		request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, page+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusNotFound {
			t.Errorf("%s is answered %d", path, response.StatusCode)
		}
	}
}
