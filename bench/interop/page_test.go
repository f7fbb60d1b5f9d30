package interop

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// says writes a line into the page, and sends it by the keyboard.
func (w *window) says(text string) {
	w.t.Helper()
	w.do(chromedp.SendKeys("#text", text+"\n", chromedp.ByQuery))
}

func (w *window) click(selector string) {
	w.t.Helper()
	w.do(chromedp.Click(selector, chromedp.ByQuery))
}

// lines waits until the messages of the room that is shown are these, own ones with a > in front.
func (w *window) lines(want ...string) {
	w.t.Helper()
	w.becomes(`[...document.querySelectorAll('#log .line')].map((l) => (l.classList.contains('own') ? '>' : '') + l.querySelector('.text').textContent).join('|')`,
		strings.Join(want, "|"))
}

func (w *window) state(want string) {
	w.t.Helper()
	w.becomes("document.getElementById('state').textContent", want)
}

// id waits for the id of a connection that is not that of before.
func (w *window) id(before string) (id string) {
	w.t.Helper()
	eventually(w.t, "the page has an id", func() bool {
		id = w.evaluate("document.getElementById('me').textContent")
		return len(id) == 24 && id != before
	})
	return id
}

// photograph writes a picture of the page into the folder that SCREENSHOTS names.
func (w *window) photograph(name string) {
	w.t.Helper()
	if to := os.Getenv("SCREENSHOTS"); to != "" {
		var png []byte
		w.do(chromedp.CaptureScreenshot(&png))
		if err := os.WriteFile(to+"/"+name+".png", png, 0o644); err != nil {
			w.t.Error(err)
		}
	}
}

// post asks the API for something that it does.
func (b *backend) post(path, body string) {
	b.t.Helper()
	request, err := http.NewRequest(http.MethodPost, b.url+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+b.key)
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		b.t.Fatalf("%s %s: %s", path, body, text)
	}
}

// Two windows of the chat page, at a server without history, send a message each and a private message. One is cut off and
// resumes, and says that its room keeps no history. The seed's messages and those of backends are shown, too.
func TestChatPage(t *testing.T) {
	t.Parallel()
	s := serveBackends(t, "publish,manage")
	ann, bob := open(t, chromium(t), s.admin), open(t, chromium(t), s.admin)
	ann.becomes("document.getElementById('count').textContent", "2 members")
	bob.becomes("document.getElementById('count').textContent", "2 members")
	ann.says("hello from ann")
	bob.says("hello from bob")
	ann.sees("hello from bob")
	bob.sees("hello from ann")
	ann.sees("reached 1")

	first := bob.id("")
	ann.do(chromedp.SetValue("#to", first, chromedp.ByQuery))
	ann.says("psst")
	bob.becomes("document.querySelector('#log .line.private')?.innerText.includes('to you only')", "true")
	ann.says("for all again")
	bob.becomes("[...document.querySelectorAll('#log .line')].at(-1)?.className.trim()", "line") // the address was for one message

	bob.click("#cut")
	bob.state("reconnecting")
	bob.sees("You cut the connection for 5 seconds.")
	ann.sees(first[18:] + " left")
	bob.says("written while it is cut") // it waits
	bob.click("#cut")
	bob.state("resumed")
	second := bob.id(first)
	bob.sees("This room keeps no history")
	ann.sees("written while it is cut")

	seed := greet(t, "gorilla", s.ws)
	seed.say(`{"type":"join","room":"lobby"}`)
	seed.say(`{"type":"chat","room":"lobby","text":"in the seed's words","name":"Sid"}`)
	bob.sees("in the seed's words")
	bob.sees("Sid")
	seed.say(`{"type":"broadcast","room":"lobby","data":{"a":["<b>",1]}}`)
	bob.sees(`{"a":["<b>",1]}`)
	bob.click("#wire summary")
	bob.becomes(`document.getElementById('wire-log').textContent.includes('{"from":"`+seed.id+`","name":"Sid"')`, "true")
	bob.photograph("plain")

	s.post("/v1/join", `{"connection":"`+second+`","room":"den"}`)
	bob.becomes("document.querySelectorAll('#rooms .tab').length", "2")
	bob.click("#rooms .tab:last-child .room")
	s.post("/v1/publish", `{"room":"den","data":"from a backend"}`)
	bob.lines("from a backend")
	bob.sees("Backend")
	s.post("/v1/leave", `{"connection":"`+second+`","room":"den"}`)
	bob.becomes("document.querySelector('#rooms [aria-current]')?.textContent + document.querySelectorAll('#rooms .tab').length", "lobby1")
}

// In a room with history, a window that is cut off gets what is said meanwhile, once and in order. What it missed while it
// showed another page comes after what was there before. If the room does not keep enough, the page says what is missing.
func TestChatPageWithHistory(t *testing.T) {
	t.Parallel()
	s := serve(t, "--history", "**=messages:4")
	ann, bob := open(t, chromium(t), s.admin), open(t, chromium(t), s.admin)
	ann.says("one")
	bob.lines("one")
	bob.says("two")
	ann.lines(">one", "two")

	bob.click("#cut")
	bob.state("reconnecting")
	ann.says("three")
	ann.says("four")
	ann.lines(">one", "two", ">three", ">four")
	bob.says("five")
	bob.click("#cut")
	bob.state("resumed · 2 messages")
	bob.lines("one", ">two", "three", "four", ">five")
	bob.photograph("resumed")

	ann.lines(">one", "two", ">three", ">four", "five")
	ann.do(chromedp.Navigate("about:blank"))
	bob.says("six")
	bob.lines("one", ">two", "three", "four", ">five", ">six")
	bob.sees("reached 0")
	ann.do(chromedp.Navigate(s.admin), atWork)
	ann.state("resumed · 1 message")
	ann.lines(">three", ">four", "five", "six") // own ones also of the earlier page
	ann.photograph("again")

	bob.click("#cut")
	bob.state("reconnecting")
	for n := range 6 {
		ann.says(fmt.Sprint("many ", n))
	}
	ann.becomes("document.querySelectorAll('#log .pending').length + ' ' + document.querySelectorAll('#log .line').length", "0 10")
	bob.click("#cut")
	bob.state("resumed · 2 missing")
	bob.sees("Messages 7 to 8 are missing")
	bob.lines("one", ">two", "three", "four", ">five", ">six", "many 2", "many 3", "many 4", "many 5")
	bob.photograph("gap")
}

// A message whose answer is lost with the connection is published once, and is not left open.
func TestChatPagePublishesOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, "--history", "**")
	ann, bob := open(t, chromium(t), s.admin), open(t, chromium(t), s.admin)
	bob.do(chromedp.Evaluate(`{
		const send = WebSocket.prototype.send;
		WebSocket.prototype.send = function (text) {
			send.call(this, text);
			if (!text.includes('"broadcast"')) return;
			WebSocket.prototype.send = send;
			queueMicrotask(() => this.cut());
		};
	}`, nil))
	bob.says("once")
	bob.becomes("document.querySelectorAll('#log .line:not(.pending, .failed)').length", "1")
	bob.says("and another one")
	bob.lines(">once", ">and another one")
	ann.lines("once", "and another one")
	bob.click("#wire summary")
	bob.becomes(`document.getElementById('wire-log').textContent.includes('"duplicate":{"seq":1,')`, "true")
}

// The count of members follows joins and leaves; names are shown; a member chosen by keyboard gets the private message; a
// reload keeps the session and the rooms, and so does the page where the session is gone; a room that is left stays left.
func TestChatPageRemembers(t *testing.T) {
	t.Parallel()
	s := serve(t)
	ann := open(t, chromium(t), s.admin)
	ann.becomes("document.getElementById('count').textContent", "1 member")
	bob := open(t, chromium(t), s.admin)
	ann.becomes("document.getElementById('count').textContent", "2 members")
	bob.do(chromedp.SetValue("#name", "Bob", chromedp.ByQuery))
	bob.says("hi")
	ann.becomes("document.querySelector('#log .line .who')?.textContent", "Bob")
	ann.do(chromedp.Focus("#log .line:last-child button.who", chromedp.ByQuery), chromedp.KeyEvent("\r"))
	first := bob.id("")
	ann.becomes("document.getElementById('to').value === '"+first+"' && document.activeElement.id", "text")
	bob.do(chromedp.SendKeys("#room", "den\n", chromedp.ByQuery))
	rooms := "[...document.querySelectorAll('#rooms .room')].map((r) => r.firstChild.textContent).sort().join(' ') + ', ' + document.querySelector('#rooms [aria-current]')?.textContent"
	bob.becomes(rooms, "den lobby, den")
	ann.says("in private")
	ann.says("for the lobby")
	bob.becomes("document.querySelector('#rooms .unread')?.textContent", "1")
	bob.sees("in private") // private messages are shown where the reader is

	bob.do(chromedp.Reload(), atWork)
	bob.state("resumed")
	second := bob.id(first)
	bob.becomes(rooms, "den lobby, den")
	bob.becomes("document.getElementById('name').value", "Bob")
	bob.becomes("document.getElementById('count').textContent", "1 member")

	// The session knows rooms that the page has forgotten.
	bob.do(chromedp.Evaluate("Storage.prototype.setItem = () => {}; sessionStorage.removeItem('chat')", nil), chromedp.Reload(), atWork)
	bob.becomes(rooms, "den lobby, lobby")
	bob.click("#rooms .tab:last-child .room")
	bob.becomes("document.getElementById('count').textContent", "1 member")

	bob.do(chromedp.Evaluate("sessionStorage.setItem('parley:', 'of a server that is gone')", nil), chromedp.Reload(), atWork)
	bob.state("new session")
	bob.id(second)
	bob.becomes(rooms, "den lobby, den")
	bob.click("#rooms .tab.current .leave")
	bob.becomes(rooms, "lobby, lobby")
	ann.becomes("document.getElementById('count').textContent", "2 members")
	bob.do(chromedp.Reload(), atWork)
	bob.becomes(rooms, "lobby, lobby")

	thief := greet(t, "gorilla", s.ws)
	thief.say(`{"type":"reconnect","token":%q}`, bob.evaluate("sessionStorage.getItem('parley:')"))
	bob.sees("Another window has taken this session over.")
	bob.state("disconnected")
	bob.becomes("document.getElementById('cut').textContent", "Connect")
	bob.click("#cut")
	bob.state("new session")
	ann.becomes("document.getElementById('count').textContent", "3 members")
	bob.do(chromedp.Navigate("about:blank"))
	thief.c.reset()
	ann.becomes("document.getElementById('count').textContent", "1 member")
}

// On a phone every field can be written into, and the page is not wider than the screen. It speaks the browser's language
// until another one is chosen, which a reload keeps, and is as dark as the person wishes.
func TestChatPageOnAPhone(t *testing.T) {
	t.Parallel()
	s := serve(t)
	w := open(t, chromium(t, chromedp.Flag("accept-lang", "zh-CN"), chromedp.Flag("blink-settings", "preferredColorScheme=0")), s.admin)
	w.do(chromedp.EmulateViewport(375, 667))
	w.becomes("getComputedStyle(document.body).backgroundColor", "rgb(20, 23, 28)")
	for _, language := range []struct{ tag, send, state string }{{"zh-CN", "发送", "已连接"}, {"en", "Send", "connected"}} {
		w.becomes("document.documentElement.lang", language.tag)
		w.becomes("document.getElementById('send').textContent", language.send)
		w.state(language.state)
		for field, least := range map[string]int{"text": 260, "to": 130, "room": 100, "name": 80} {
			w.becomes(fmt.Sprintf("document.getElementById('%s').offsetWidth >= %d", field, least), "true")
		}
		w.becomes("document.documentElement.scrollWidth <= 375 && document.getElementById('log').offsetHeight > 350", "true")
		w.photograph("phone-" + language.tag)
		w.click("#language")
	}
	w.click("#language")
	w.do(chromedp.Reload(), atWork)
	w.becomes("document.documentElement.lang", "en")

	light := open(t, chromium(t), s.admin)
	light.becomes("getComputedStyle(document.body).backgroundColor + ' ' + document.documentElement.lang", "rgb(255, 255, 255) en")
}

// The bare page and the chat page talk. After a cut the bare page gets what was said meanwhile.
func TestBarePage(t *testing.T) {
	t.Parallel()
	s := serve(t, "--history", "**")
	ann := open(t, chromium(t), s.admin)
	bob := &window{t, chromium(t)}
	bob.do(chromedp.EmulateViewport(900, 560), chromedp.Navigate(s.admin+"bare.html"), chromedp.WaitVisible("#text", chromedp.ByQuery))
	ann.becomes("document.getElementById('count').textContent", "2 members")
	bob.do(chromedp.Evaluate(`{
		const send = WebSocket.prototype.send;
		WebSocket.prototype.send = function (text) { window.socket = this; send.call(this, text); };
		window.setTimeout = (again) => { window.again = again; };
	}`, nil))
	bob.says("from the bare page")
	ann.lines("from the bare page")
	bob.do(chromedp.Evaluate("window.socket.close()", nil))
	bob.becomes("typeof window.again", "function")
	ann.says("one")
	ann.says("two")
	ann.lines("from the bare page", ">one", ">two")
	bob.becomes("document.querySelectorAll('.line').length", "1")
	bob.do(chromedp.Evaluate("window.again()", nil))
	bob.becomes("[...document.querySelectorAll('#log li')].map((l) => l.textContent).join('|')", "from the bare page|one|two")
	bob.photograph("bare")
	bob.click("header a")
	bob.do(atWork)
	bob.lines("from the bare page", "one", "two")
}
