package interop

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// window is the chat page in a tab of Chromium.
type window struct {
	t   *testing.T
	ctx context.Context
}

// chromium starts a browser of its own: in one that is shared, only one tab takes keys.
func chromium(t *testing.T) context.Context {
	t.Helper()
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(need(t, "chromium")), chromedp.NoSandbox, chromedp.DisableGPU)...)
	t.Cleanup(stop)
	ctx, stop := chromedp.NewContext(allocator)
	t.Cleanup(stop)
	ctx, stop = context.WithTimeout(ctx, 3*patient)
	t.Cleanup(stop)
	return ctx
}

func open(t *testing.T, ctx context.Context, url string) *window {
	t.Helper()
	w := &window{t, ctx}
	w.do(chromedp.EmulateViewport(900, 560), chromedp.Navigate(url), chromedp.WaitVisible("#state.open", chromedp.ByQuery))
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

// Two windows of the chat page: a room, a message each, a private message, a cut connection that resumes.
func TestChatPage(t *testing.T) {
	s := serve(t)
	ann := open(t, chromium(t), s.admin)
	bob := open(t, chromium(t), s.admin)
	bob.sees("Joined lobby, 2 there")
	ann.sees("joined lobby")

	ann.do(chromedp.SendKeys("#text", "hello from ann\n", chromedp.ByQuery))
	bob.sees("hello from ann")
	bob.do(chromedp.SendKeys("#text", "hello from bob\n", chromedp.ByQuery))
	ann.sees("hello from bob")

	ann.do(chromedp.SetValue("#to", bob.text("#me"), chromedp.ByQuery), chromedp.SendKeys("#text", "psst\n", chromedp.ByQuery))
	bob.sees("to you: psst")

	before := bob.text("#me")
	bob.do(chromedp.Click("#cut", chromedp.ByQuery))
	bob.sees("Session resumed; back in lobby")
	if after := bob.text("#me"); after == before || len(after) != 24 {
		t.Errorf("the id was %q and is %q", before, after)
	}
	ann.do(chromedp.Evaluate("document.querySelector('#to').value = ''", nil), chromedp.SendKeys("#text", "still there?\n", chromedp.ByQuery))
	bob.sees("still there?")
	if to := os.Getenv("SCREENSHOT"); to != "" {
		var png []byte
		bob.do(chromedp.CaptureScreenshot(&png))
		if err := os.WriteFile(to, png, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// The seed's own client, as its document prints it: it resumes in a browser, unchanged but for the address.
func TestSeedClient(t *testing.T) {
	s := serve(t)
	ctx := chromium(t)
	w := &window{t, ctx}
	script := `
let reconnectToken = null;
let ws = new WebSocket('` + s.ws + `');
window.seen = [];
function wire() {
ws.onclose = function(event) {
    setTimeout(() => {
        ws = new WebSocket('` + s.ws + `');
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
    window.last = data;
    if (data.type === 'reconnect_token') {
        reconnectToken = data.token;
    }
};
}
wire();
ws.onopen = () => ws.send(JSON.stringify({type: 'join', room: 'room1'}));
window.cut = () => ws.close();
true`
	var seen []string
	w.do(chromedp.Navigate(s.admin+"server.json"), chromedp.Evaluate(script, nil))
	has := func(typ string) func() bool {
		return func() bool {
			w.do(chromedp.Evaluate("window.seen", &seen))
			return strings.Contains(strings.Join(seen, " "), typ)
		}
	}
	eventually(t, "the client has joined", has("joined"))
	w.do(chromedp.Evaluate("window.cut()", nil))
	eventually(t, "the client resumes", has("reconnected reconnect_token"))
}
