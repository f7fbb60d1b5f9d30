package interop

import (
	"fmt"
	"html"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
)

// pictureBytesMax bounds a picture of the documents: a clone has all of them.
const pictureBytesMax = 150 << 10

// album is the folder for pictures of the documents: the one that PICTURES names, else one that is deleted after the test.
func album(t *testing.T) string {
	if to := os.Getenv("PICTURES"); to != "" {
		return to
	}
	return t.TempDir()
}

// picture writes a picture of a part of the page, and wants it to be small.
func (w *window) picture(folder, name, selector string) {
	w.t.Helper()
	var png []byte
	w.do(chromedp.Screenshot(selector, &png, chromedp.ByQuery))
	if len(png) == 0 || len(png) > pictureBytesMax {
		w.t.Errorf("%s has %d bytes: %d are allowed", name, len(png), pictureBytesMax)
	}
	if err := os.WriteFile(filepath.Join(folder, name+".png"), png, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// talk is what three people say in a picture.
type talk struct {
	language, room       string
	names                [3]string
	before, missed, last []string // the last one is away while the second part is said
}

var talks = []talk{
	{"en", "crew", [3]string{"Ann", "Bob", "Cid"},
		[]string{"The train leaves at 8:05.", "Which platform?", "Seven. I have the tickets."},
		[]string{"It is late: 8:20 now.", "Then there is time for a coffee."}, []string{"Back from the tunnel. 8:20, I have read it."}},
	{"zh", "小组", [3]string{"小安", "小波", "小陈"},
		[]string{"火车八点零五分开。", "哪个站台？", "七号。票在我这里。"},
		[]string{"晚点了，改到八点二十。", "那还来得及喝杯咖啡。"}, []string{"刚出隧道。八点二十，我看到了。"}},
}

// The pictures of the chat page that the READMEs show: three people talk in a room with history, and one whose connection was cut
// has got what was said meanwhile. `make pictures` makes them anew.
func TestPictures(t *testing.T) {
	t.Parallel()
	folder, taken := album(t), talks
	if os.Getenv("PICTURES") == "" {
		taken = talks[:1]
	}
	for _, talk := range taken {
		s := serve(t, "--history", "**")
		var people []*window
		for _, name := range talk.names {
			w := open(t, chromium(t, chromedp.Flag("accept-lang", map[string]string{"en": "en-US", "zh": "zh-CN"}[talk.language])), s.admin)
			w.do(chromedp.EmulateViewport(960, 540), chromedp.SetValue("#name", name, chromedp.ByQuery), chromedp.SendKeys("#room", talk.room+"\n", chromedp.ByQuery))
			w.becomes("document.querySelector('#rooms [aria-current]')?.textContent", talk.room)
			people = append(people, w)
		}
		away := people[2]
		say := func(lines []string, speakers, readers []*window) {
			for i, line := range lines {
				speakers[i%len(speakers)].says(line)
				for _, w := range readers {
					w.sees(line)
				}
			}
		}
		say(talk.before, people, people)
		away.click("#cut")
		away.becomes("document.getElementById('state').className.includes('open')", "false")
		say(talk.missed, people[:2], people[:2])
		away.click("#cut")
		away.becomes("document.getElementById('state').className.includes('open')", "true")
		for _, line := range talk.missed {
			away.sees(line)
		}
		say(talk.last, people[2:], people)
		away.click("#wire summary")
		away.becomes("document.querySelectorAll('#member-list > *').length >= 3", "true")
		away.picture(folder, "chat-"+talk.language, "html")
	}
}

// terminalPage shows a command and what it prints.
const terminalPage = `<!doctype html><meta charset="utf-8"><body style="margin:0;width:max-content"><pre style="margin:0;padding:16px 20px;` +
	`background:#14171c;color:#e7eaee;font:14px/1.5 ui-monospace,'DejaVu Sans Mono',monospace"><span style="color:#98a2b0">$</span> <b>parley status %s</b>` + "\n%s</pre>"

// The picture of `parley status`: four workers, of which one was killed and is there again.
func TestPictureOfStatus(t *testing.T) {
	t.Parallel()
	l := launch(t, binary, "", "--processes", "4").ready()
	join := func(n int) {
		for i := range n {
			p := greet(t, "gorilla", l.ws())
			p.say(`{"type":"join","room":"room-%d"}`, i%9)
			p.until("joined")
			p.say(`{"type":"broadcast","room":"room-%d","data":"hello"}`, i%9)
			p.until("broadcast_sent")
		}
	}
	join(40)
	syscall.Kill(l.pidOf(1), syscall.SIGKILL)
	shown := ""
	eventually(t, "the killed worker is there again", func() bool {
		code, out := l.status()
		shown = out
		return code == 0 && strings.Contains(out, "signal 9 (killed)") && strings.Count(out, "ready") == 5
	})
	join(20)
	eventually(t, "fifty clients at least are counted", func() bool {
		_, shown = l.status()
		n := 0
		_, err := fmt.Sscanf(shown[strings.Index(shown, ", ")+1:], "%d of", &n)
		return err == nil && n >= 50
	})
	w := &window{t, chromium(t)}
	page := fmt.Sprintf(terminalPage, fmt.Sprintf("http://127.0.0.1:%d", l.admin), html.EscapeString(strings.TrimRight(shown, "\n")))
	w.do(chromedp.EmulateViewport(1100, 400), chromedp.Navigate("data:text/html;charset=utf-8,"+url.PathEscape(page)), chromedp.WaitVisible("pre", chromedp.ByQuery))
	if text := w.text("pre"); !strings.Contains(text, "worker 3") {
		t.Errorf("the page shows %q", text)
	}
	w.picture(album(t), "status", "pre")
}
