package api

import (
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/protocol/message"
)

const (
	linesType = "application/x-ndjson"
	// chunkBytes are written at once. A client that does not take a chunk within lineTimeout is cut.
	chunkBytes  = 32 << 10
	lineTimeout = 30 * time.Second
	streamsMax  = 64 // at once: each holds a page
)

// wantsLines reports whether a client accepts a stream of lines.
func wantsLines(accept []string) bool {
	for _, one := range strings.Split(strings.Join(accept, ","), ",") {
		kind, parameters, err := mime.ParseMediaType(one)
		if err != nil || kind != linesType {
			continue
		}
		q, err := strconv.ParseFloat(parameters["q"], 64)
		return parameters["q"] == "" || err == nil && q > 0
	}
	return false
}

// stream is a list on its way to a client: a line for each row, and a last line without which it was cut.
//
// Owner: one goroutine.
type stream struct {
	server  *Server
	call    *call
	request *readRequest
	list    *list
	page    page
	partial *engine.PartialError
	count   int
	chunk   []byte
}

// write writes the whole list. If it cannot, it ends the connection, so that the client does not see a last line.
func (m *stream) write(w http.ResponseWriter) {
	for {
		for _, row := range m.page.rows {
			var err error
			if m.chunk, err = message.Encode(m.chunk, row); err != nil {
				panic(http.ErrAbortHandler)
			}
			m.chunk = append(m.chunk, '\n')
			m.count++
			if len(m.chunk) >= chunkBytes {
				m.flush(w)
			}
		}
		if m.page.next == "" {
			break
		}
		m.flush(w)
		m.follow()
	}
	m.chunk = append(m.server.appendPartial(fmt.Appendf(m.chunk, `{"end":true,"count":%d`, m.count), m.partial), "}\n"...)
	m.flush(w)
}

// release gives the stream's place back.
func (m *stream) release() { <-m.server.streams }

// follow fetches the next page, and waits for its place among those who ask.
func (m *stream) follow() {
	m.request.after = m.page.next
	one := *m.call
	one.waits = true
	next, partial, wrong := m.server.page(&one, m.request, m.list)
	if wrong != nil {
		m.server.log.Warn("a list that streams to a backend is cut off, because a page of it failed: ask for it again", "path", one.route.path, "key", one.key.id, "request", one.request, "why", wrong.code.String())
		panic(http.ErrAbortHandler)
	}
	m.page = next
	if partial != nil && m.partial != nil {
		partial.Workers = append(partial.Workers, m.partial.Workers...)
		slices.Sort(partial.Workers)
		partial.Workers = slices.Compact(partial.Workers)
	}
	if partial != nil {
		m.partial = partial
	}
}

// flush writes the chunk. Every chunk has its own time, so that a long list may take long, and a client that does not read
// costs its own connection alone.
func (m *stream) flush(w http.ResponseWriter) {
	if len(m.chunk) == 0 {
		return
	}
	control := http.NewResponseController(w)
	err := control.SetWriteDeadline(time.Now().Add(m.server.lineTimeout))
	if err == nil {
		_, err = w.Write(m.chunk)
	}
	if err == nil {
		err = control.Flush()
	}
	if err != nil {
		panic(http.ErrAbortHandler) // the client is gone, or did not read
	}
	m.chunk = m.chunk[:0]
}
