package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// faint lists what a person with weak eyes cannot read: texts below a contrast of 4.5 to what is behind them, and edges of fields below
// 3 (WCAG 2.2, 1.4.3 and 1.4.11). It tries each colour that a name can have.
const faint = `(() => {
	const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
	const light = (colour) => numbers(colour).slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
		.reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
	const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
	const ground = (e) => {
		for (; e; e = e.parentElement) {
			const colour = getComputedStyle(e).backgroundColor;
			if (numbers(colour)[3] !== 0) return colour;
		}
		return 'rgb(255, 255, 255)';
	};
	const wrong = [];
	const judge = (e, colour, behind, least, what) => {
		if (contrast(colour, behind) < least) wrong.push(what + ' of ' + (e.id || e.className || e.tagName) + ': ' + colour + ' on ' + behind);
	};
	for (const e of document.body.querySelectorAll('*')) {
		if (e.disabled || e.closest('.spoken, script') || !e.getClientRects().length) continue;
		const style = getComputedStyle(e);
		if ([...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) judge(e, style.color, ground(e), 4.5, 'text');
		if (e.tagName !== 'INPUT') continue;
		judge(e, style.color, ground(e), 4.5, 'value');
		judge(e, getComputedStyle(e, '::placeholder').color, ground(e), 4.5, 'placeholder');
		judge(e, style.borderTopColor, ground(e.parentElement), 3, 'edge');
	}
	for (const e of document.querySelectorAll('.line button.who')) {
		const hue = e.style.getPropertyValue('--hue');
		for (let h = 0; h < 360; h += 5) {
			e.style.setProperty('--hue', h);
			judge(e, getComputedStyle(e).color, ground(e), 4.5, 'name');
		}
		e.style.setProperty('--hue', hue);
	}
	return wrong.join('; ');
})()`

// outside lists what does not fit on the page: elements beyond its right edge that no list scrolls, and words that a control cuts off.
const outside = `(() => {
	const wrong = [];
	if (document.documentElement.scrollWidth > innerWidth) wrong.push('the page scrolls sideways');
	for (const e of document.body.querySelectorAll('header *, nav *, form *, summary, aside a')) {
		if (!e.getClientRects().length || e.closest('#rooms')) continue;
		const box = e.getBoundingClientRect();
		if (box.right > innerWidth + 0.5 || box.left < -0.5) wrong.push((e.id || e.tagName) + ' is outside');
		if (e.tagName !== 'INPUT' && e.scrollWidth > e.clientWidth + 1 && e.clientWidth) wrong.push((e.id || e.tagName) + ' is cut off');
	}
	return wrong.join('; ');
})()`

// In both languages, light and dark, wide and on a phone of 360 pixels, everything can be read, nothing lies outside of the page, and the
// members and the wire are reached: in the empty room, and with messages of all kinds.
func TestChatPageLooks(t *testing.T) {
	t.Parallel()
	s := serve(t, "--history", "**")
	w := open(t, chromium(t, chromedp.Flag("accept-lang", "en-GB,zh-CN")), s.admin)
	w.everyLook("empty", func(string) {})
	other := greet(t, "gorilla", s.ws)
	other.say(`{"type":"join","room":"lobby"}`)
	other.say(`{"type":"chat","room":"lobby","text":"Good morning! Is the kettle on?","name":"Sid"}`)
	w.sees("kettle")
	w.says("It is. 茶好了。")
	other.say(`{"type":"private","to":"%s","text":"between us","name":"Sid"}`, w.id(""))
	w.sees("between us")
	w.do(chromedp.SetValue("#to", "nobody-has-this-id", chromedp.ByQuery))
	w.says("is there anybody?")
	w.sees("No client with this id is connected.")
	other.say(`{"type":"broadcast","room":"lobby","data":{"a":["long",%s1]}}`, strings.Repeat(`"word",`, 60))
	w.sees("long")
	w.everyLook("talk", func(size string) {
		for _, panel := range []string{"members", "wire"} {
			w.do(chromedp.Evaluate(fmt.Sprintf("document.getElementById('%s').open = true", panel), nil))
			w.becomes(fmt.Sprintf("(({ height, width, bottom, right }) => height > 20 && bottom <= innerHeight + 0.5 && right <= innerWidth + 0.5 && width > 250)(document.querySelector('#%s :is(ul, ol)').getBoundingClientRect())", panel), "true")
			w.becomes(outside, "")
			if panel == "wire" {
				w.becomes(faint, "")
				w.photograph("look-panels-" + size)
			}
			if strings.Contains(size, "phone") {
				w.do(chromedp.Evaluate(fmt.Sprintf("document.getElementById('%s').open = false", panel), nil))
			}
		}
	})
	w.click("#cut")
	w.do(chromedp.WaitVisible("#state.busy", chromedp.ByQuery))
	w.everyLook("cut", func(string) {})
}

// everyLook shows the page in each of its looks, and checks it.
func (w *window) everyLook(name string, more func(look string)) {
	w.t.Helper()
	for _, language := range []string{"en", "zh-CN"} {
		w.becomes("document.documentElement.lang", language)
		for _, scheme := range []string{"light", "dark"} {
			w.do(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}))
			for size, box := range map[string][2]int64{"wide": {1100, 640}, "phone": {360, 640}} {
				look := strings.Join([]string{language, scheme, size}, "-")
				w.do(chromedp.EmulateViewport(box[0], box[1]))
				w.becomes("innerWidth", fmt.Sprint(box[0]))
				w.photograph("look-" + name + "-" + look)
				w.becomes(outside, "")
				w.becomes(faint, "")
				w.becomes("(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight < 60)(document.getElementById('log'))", "true")
				more(look)
			}
		}
		w.click("#language")
	}
}

// Every control is reached by Tab and shows that it has the focus; Enter opens and sends, Escape closes and takes an address back.
func TestChatPageByKeyboard(t *testing.T) {
	t.Parallel()
	s := serve(t)
	w := open(t, chromium(t), s.admin)
	other := greet(t, "gorilla", s.ws)
	other.say(`{"type":"join","room":"lobby"}`)
	other.say(`{"type":"broadcast","room":"lobby","data":"hello"}`)
	w.sees("hello")
	w.do(chromedp.EmulateViewport(1100, 640), chromedp.Evaluate("document.getElementById('members').open = true", nil))
	reached := map[string]bool{}
	for range 40 {
		w.do(chromedp.KeyEvent(kb.Tab))
		at := w.evaluate("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")
		reached[at] = true
		if at != "BODY" && w.evaluate("(({ outlineStyle, outlineWidth }) => outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2)(getComputedStyle(document.activeElement))") != "true" {
			t.Errorf("%s does not show that it has the focus", at)
		}
	}
	for _, want := range []string{"cut", "language", "room", "leave", "join", "log", "who", "count", "SUMMARY", "bare", "name", "to", "text", "send"} {
		if !reached[want] {
			t.Errorf("Tab does not reach %s: %v", want, reached)
		}
	}

	w.do(chromedp.Focus("#wire summary", chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
	w.becomes("document.getElementById('wire').open", "true")
	w.do(chromedp.Focus("#wire-log", chromedp.ByQuery), chromedp.KeyEvent(kb.Escape))
	w.becomes("document.getElementById('wire').open + ' ' + document.activeElement.parentElement.id", "false wire")
	w.do(chromedp.Focus("#member-list button.who", chromedp.ByQuery), chromedp.KeyEvent(kb.Enter))
	w.becomes("document.getElementById('to').value.length + document.activeElement.id", "24text")
	w.do(chromedp.KeyEvent(kb.Escape))
	w.becomes("document.getElementById('to').value + document.activeElement.id", "text")
	w.do(chromedp.EmulateViewport(360, 640))
	w.becomes("document.getElementById('members').open", "true")
	w.do(chromedp.KeyEvent(kb.Escape))
	w.becomes("document.getElementById('members').open", "false")
}

// A screen reader hears what others write and who comes, and at once what went wrong; it does not hear one's own messages.
func TestChatPageIsHeard(t *testing.T) {
	t.Parallel()
	s := serve(t)
	w := open(t, chromium(t), s.admin)
	other := greet(t, "gorilla", s.ws)
	other.say(`{"type":"join","room":"lobby"}`)
	other.say(`{"type":"chat","room":"lobby","text":"good morning","name":"Sid"}`)
	w.says("my own words")
	w.sees("reached 1")
	w.becomes("document.getElementById('spoken').innerText.replaceAll(/\\s+/g, ' ').trim()", other.id[18:]+" joined Sid: good morning")
	w.do(chromedp.SetValue("#to", "nobody-has-this-id", chromedp.ByQuery))
	w.says("is there anybody?")
	w.becomes("document.getElementById('urgent').textContent.startsWith('No client with this id')", "true")
	w.becomes("document.getElementById('urgent').role + ' ' + document.getElementById('spoken').ariaLive + ' ' + document.getElementById('state').role", "alert polite status")
}

// What goes wrong is said in plain words, with what to change: a full room, a list of origins without the page, a missing token. With a
// token in its address the page works.
func TestChatPageSaysWhatToChange(t *testing.T) {
	t.Parallel()
	full := serve(t, "--max-connections-per-room", "1")
	open(t, chromium(t), full.admin).becomes("document.getElementById('count').textContent", "1 member")
	w := open(t, chromium(t), full.admin)
	w.sees("The server refuses the room lobby: The room is full. Choose another room, or wait until a member leaves. (room_full)")
	w.sees("You are in no room.")
	w.photograph("full")
	w.do(chromedp.SendKeys("#room", "den\n", chromedp.ByQuery))
	w.says("alone here")
	w.lines(">alone here")

	strict := serve(t, "--origins", "https://example.com")
	w.do(chromedp.Navigate(strict.admin))
	w.sees("its setting “origins” has a list")
	w.sees("add " + strings.TrimSuffix(strict.admin, "/") + " to the list")
	w.state("reconnecting")
	w.photograph("origins")

	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("0123456789abcdef", 3)), 0o600); err != nil {
		t.Fatal(err)
	}
	closed := serve(t, "--auth", "required", "--jwt-secret-file", secret)
	w.do(chromedp.Navigate(closed.admin))
	w.sees("This server asks for an access token. Make one with “parley token --user ann --join '**' --publish '**'”")
	w.state("disconnected")
	w.becomes("document.querySelector('.hint').checkVisibility()", "false") // nothing can be tried without a connection
	w.photograph("token")
	token, err := exec.Command(binary, "token", "--user", "ann", "--join", "**", "--publish", "**", "--auth", "required", "--jwt-secret-file", secret).Output()
	if err != nil {
		t.Fatal(err)
	}
	w.do(chromedp.Navigate(closed.admin+"#token="+strings.TrimSpace(string(token))), atWork)
	w.says("with a token")
	w.lines(">with a token")
}
