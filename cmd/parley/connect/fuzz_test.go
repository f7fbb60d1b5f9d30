package connect

import (
	"bufio"
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// Whatever bytes a server sends, they are read without a panic, and what is printed of them is harmless; with --json it is JSON.
func FuzzServer(f *testing.F) {
	for _, text := range hostileTexts[:len(hostileTexts)-3] { // without the huge ones
		f.Add(ws.MustCompileFrame(ws.NewTextFrame([]byte(text))))
	}
	f.Add([]byte("\x01\x01x\x80\x01y\x89\x01p\x82\x02\x00\x1b\x88\x05\x0f\xa1\x1b[m"))
	f.Fuzz(func(t *testing.T, input []byte) {
		r := reader{in: bufio.NewReader(bytes.NewReader(input))}
		for {
			a := r.next()
			if a.err != nil {
				if bad := strings.IndexFunc(a.err.Error(), func(r rune) bool { return !harmless(r) }); bad >= 0 {
					t.Errorf("the error %q", a.err)
				}
				return
			}
			for _, form := range []Form{Lines, Raw, JSON} {
				printed(t, &a, form)
			}
		}
	})
}

// printed wants harmless lines of an arrival.
func printed(t *testing.T, a *arrival, form Form) {
	t.Helper()
	var out bytes.Buffer
	p := printer{out: &out, notes: &out, form: form}
	p.got(a)
	if m, ok := readReply(a.payload); ok && a.op == ws.OpText {
		p.message(&m, a.payload)
	}
	if bad := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && !harmless(r) }); bad >= 0 {
		t.Errorf("form %d prints %q of %q", form, out.String(), a.payload)
	}
	if form == JSON && out.Len() > 0 && !json.Valid(out.Bytes()) {
		t.Errorf("%q is no JSON", out.String())
	}
}
