package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// window is the chat page in a tab of Chromium.
type window struct {
	t   *testing.T
	ctx context.Context
}

// chromium starts a browser of its own: in a shared one, only one tab takes keys.
func chromium(t *testing.T, options ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	all := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(need(t, "chromium")), chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.IgnoreCertErrors)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(all, options...)...)
	t.Cleanup(stop)
	ctx, stop := chromedp.NewContext(allocator)
	t.Cleanup(stop)
	ctx, stop = context.WithTimeout(ctx, 3*patient)
	t.Cleanup(stop)
	return ctx
}

// atWork waits until the page is connected, whether or not something is missing.
var atWork = chromedp.WaitVisible("#state.open, #state.gap", chromedp.ByQuery)

func open(t *testing.T, ctx context.Context, url string) *window {
	t.Helper()
	w := &window{t, ctx}
	w.do(chromedp.EmulateViewport(900, 560), chromedp.Navigate(url), atWork)
	return w
}

func (w *window) do(actions ...chromedp.Action) {
	w.t.Helper()
	if err := chromedp.Run(w.ctx, actions...); err != nil {
		w.t.Fatal(err)
	}
}

func (w *window) text(selector string) (text string) {
	w.t.Helper()
	w.do(chromedp.Text(selector, &text, chromedp.ByQuery))
	return text
}

func (w *window) sees(what string) {
	w.t.Helper()
	eventually(w.t, "the page shows "+what, func() bool { return strings.Contains(w.text("#log"), what) })
}

// evaluate is the value of an expression of the page.
func (w *window) evaluate(expression string) (value string) {
	w.t.Helper()
	w.do(chromedp.Evaluate("String("+expression+")", &value))
	return value
}

// becomes waits until an expression of the page has a value.
func (w *window) becomes(expression, want string) {
	w.t.Helper()
	got := ""
	defer func() {
		if w.t.Failed() {
			w.t.Logf("it is %q", got)
		}
	}()
	eventually(w.t, expression+" is "+want, func() bool { got = w.evaluate(expression); return got == want })
}

// seedClient runs the seed's own client, as its document prints it, in a browser, unchanged but for the address: it joins
// room1. window.seen has the types of all messages, window.heard their texts.
func seedClient(t *testing.T, page, url string) *window {
	t.Helper()
	w := &window{t, chromium(t)}
	script := `
let reconnectToken = null;
let ws = new WebSocket('` + url + `');
window.seen = [];
window.heard = [];
function wire() {
ws.onclose = function(event) {
    setTimeout(() => {
        ws = new WebSocket('` + url + `');
        ws.onopen = function() {
            if (reconnectToken) {
                ws.send(JSON.stringify({
                    type: 'reconnect',
                    token: reconnectToken
                }));
            }
        };
        wire();
    }, 1000);
};
ws.onmessage = function(event) {
    const data = JSON.parse(event.data);
    window.seen.push(data.type);
    if (data.text) window.heard.push(data.text);
    window.last = data;
    if (data.type === 'reconnect_token') {
        reconnectToken = data.token;
    }
};
}
wire();
ws.onopen = () => ws.send(JSON.stringify({type: 'join', room: 'room1'}));
window.cut = () => ws.close();
window.say = (text) => ws.send(JSON.stringify({type: 'chat', room: 'room1', text}));
true`
	w.do(chromedp.Navigate(page), chromedp.Evaluate(script, nil))
	w.has("seen", "joined")
	return w
}

// has waits until a list of the page holds words, one after the other.
func (w *window) has(list, words string) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("window.%s has %q", list, words), func() bool {
		var all []string
		w.do(chromedp.Evaluate("window."+list, &all))
		return strings.Contains(strings.Join(all, " "), words)
	})
}

// The seed's own client resumes.
func TestSeedClient(t *testing.T) {
	t.Parallel()
	s := serve(t)
	w := seedClient(t, s.admin+"server.json", s.ws)
	w.do(chromedp.Evaluate("window.cut()", nil))
	w.has("seen", "reconnected reconnect_token")
}

// In the seed's chat behind a real nginx with four workers, two browsers and ten other clients get each other's messages in
// order, on the same worker or not; a browser that was cut off comes back with its room.
func TestSeedChatOfFourWorkers(t *testing.T) {
	s := serve(t, "--trusted-proxies", "127.0.0.1", "--processes", "4")
	n := startNginx(t, "nginx.conf", s)
	ann, bob := seedClient(t, s.admin+"server.json", "wss://"+n.address+"/"), seedClient(t, s.admin+"server.json", "wss://"+n.address+"/")
	var others []*person
	for i := range 10 {
		from := fmt.Sprintf("127.0.0.%d", 10+i)
		p := n.dial(from, forged)
		if got := p.address(); got != from {
			t.Errorf("a client at %s is taken for %s", from, got)
		}
		p.say(`{"type":"join","room":"room1"}`)
		p.until("joined")
		others = append(others, p)
	}
	eventually(t, "connections are spread over workers", func() bool { return s.busyWorkers() > 1 })
	ann.do(chromedp.Evaluate("for (const text of ['one', 'two', 'three']) window.say(text)", nil))
	bob.has("heard", "one two three")
	for _, p := range others {
		for _, text := range []string{"one", "two", "three"} {
			if m := p.until("chat"); m["text"] != text {
				t.Errorf("heard %v in place of %s", m, text)
			}
		}
	}
	for i, p := range others {
		p.say(`{"type":"chat","room":"room1","text":"from %d"}`, i)
		ann.has("heard", fmt.Sprintf("from %d", i))
		bob.has("heard", fmt.Sprintf("from %d", i))
	}
	bob.do(chromedp.Evaluate("window.cut()", nil))
	bob.has("seen", "reconnected reconnect_token")
	ann.do(chromedp.Evaluate("window.say('still')", nil))
	bob.has("heard", "still")
}

// busyWorkers is the number of workers that have connections.
func (s *server) busyWorkers() (n int) {
	s.t.Helper()
	response, err := http.Get(s.admin + "stats")
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	var stats struct{ Workers []struct{ Connections int } }
	if err := json.NewDecoder(response.Body).Decode(&stats); err != nil {
		s.t.Fatal(err)
	}
	for _, w := range stats.Workers {
		if w.Connections > 0 {
			n++
		}
	}
	return n
}
