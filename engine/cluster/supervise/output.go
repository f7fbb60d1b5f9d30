package supervise

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/parleyd/parley/engine/logs"
	"github.com/parleyd/parley/protocol/ident"
)

// outlet passes lines of several wards on to one writer, each whole and with a mark of its ward. It reads on while the
// writer blocks: a ward with a full pipe could not even write why it ends.
type outlet struct{ lines *logs.Writer }

func newOutlet(to io.Writer, log *slog.Logger) outlet {
	return outlet{logs.NewWriter(to, func(n uint64) {
		log.Warn("lines of the processes were dropped: the output was not read in time", "lines", n)
	})}
}

// mark names the ward of a line: in front of text, or as a member of a JSON object.
type mark struct{ text, member string }

func markOf(w *ward, instance ident.Worker) mark {
	if w.role != RoleWorker {
		return mark{"[" + w.role + "] ", `"role":"` + w.role + `",`}
	}
	return mark{
		fmt.Sprintf("[worker %d #%d] ", w.index, instance),
		fmt.Sprintf(`"worker":%d,"instance":%d,`, w.index, instance),
	}
}

// attach makes a pipe whose lines go to the outlet, and to kept unless that is nil. The file is for the ward.
func (o outlet) attach(m mark, kept *tail, readers *sync.WaitGroup) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make output pipe: %w", err)
	}
	readers.Go(func() {
		defer r.Close()
		o.pass(r, m, kept)
	})
	return w, nil
}

const outputLineMax = 64 << 10 // bytes; a longer line is passed on in pieces

func (o outlet) pass(r io.Reader, m mark, kept *tail) {
	in := bufio.NewReaderSize(r, outputLineMax)
	var out []byte
	for {
		text, err := in.ReadSlice('\n')
		if len(text) > 0 {
			text = bytes.TrimRight(text, "\r\n")
			if kept != nil {
				kept.add(text)
			}
			out = m.append(out[:0], text)
			o.lines.Write(out)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// append adds the marked line, with its end, to dst.
func (m mark) append(dst, text []byte) []byte {
	if len(text) > 2 && text[0] == '{' && text[1] == '"' && text[len(text)-1] == '}' {
		dst = append(append(dst, '{'), m.member...)
		return append(append(dst, text[1:]...), '\n')
	}
	return append(append(append(dst, m.text...), text...), '\n')
}

const (
	tailLines     = 20
	tailLineBytes = 500
)

// tail keeps the last lines that a process wrote, or the first lines of its panic: those have the message, and the rest is
// stacks.
type tail struct {
	mu       sync.Mutex
	lines    []string
	panicked bool
}

func (t *tail) add(text []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.panicked && isPanic(text) {
		t.lines, t.panicked = t.lines[:0], true
	}
	if t.panicked && len(t.lines) == tailLines {
		return
	}
	if len(t.lines) == tailLines {
		t.lines = append(t.lines[:0], t.lines[1:]...)
	}
	t.lines = append(t.lines, string(text[:min(len(text), tailLineBytes)]))
}

// isPanic recognises the first line of a Go panic. Go then exits with code 2, which otherwise means a wrong configuration.
func isPanic(text []byte) bool {
	return bytes.HasPrefix(text, []byte("panic: ")) || bytes.HasPrefix(text, []byte("fatal error: "))
}

// last returns the kept lines, and whether they are a panic's.
func (t *tail) last() (lines []string, panicked bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.lines...), t.panicked
}
