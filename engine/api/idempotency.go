package api

import (
	"crypto/sha256"
	"sync"
	"time"
)

// A backend that got no answer sends its request again with the same Idempotency-Key, and gets the first answer. The memory is
// this process's: after its end nothing is remembered.

const (
	answersSpan     = 10 * time.Minute
	answersKeptMax  = 100_000
	answersBytesMax = 64 << 20
	answerOverhead  = 512 // bytes of an entry besides its texts, rounded up
)

// answer is what a request gets.
type answer struct {
	status int
	body   []byte // never changed once it is built
	kind   string // its media type
}

// identity names a request: the Idempotency-Key is one of the API key's own.
type identity struct{ key, text string }

// remembered is a request under way, or its answer.
//
// Owner: shared (mutex: mu of answers).
type remembered struct {
	name   identity
	digest [sha256.Size]byte
	open   bool // under way
	until  time.Time
	answer answer
}

func (m *remembered) bytes() int {
	return len(m.name.key) + len(m.name.text) + len(m.answer.body) + answerOverhead
}

// answers is the memory of answers. What is under way is not bounded here: each is a request that the server works on.
//
// Owner: shared (mutex: mu).
type answers struct {
	mu    sync.Mutex
	known map[identity]*remembered
	order []*remembered // those with an answer, in the order in which they got it: so in the order of their ends
	bytes int
}

// digestOf is what two requests with one Idempotency-Key must have in common.
func digestOf(path string, body []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(path))
	h.Write([]byte{0}) // no path has it
	h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}

// begin takes an Idempotency-Key. The caller has the request carried out and then calls end if it gets fresh; else the
// answer, or the problem, is the answer to the request.
func (a *answers) begin(name identity, digest [sha256.Size]byte, now time.Time) (fresh *remembered, first *answer, p *problem) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forget(now)
	old := a.known[name]
	switch {
	case old == nil:
		if a.known == nil {
			a.known = map[identity]*remembered{}
		}
		fresh = &remembered{name: name, digest: digest, open: true}
		a.known[name] = fresh
		return fresh, nil, nil
	case old.digest != digest:
		return nil, nil, &problem{code: idempotencyMismatch}
	case old.open:
		return nil, nil, &problem{code: idempotencyInProgress}
	}
	return nil, &old.answer, nil
}

// end keeps the answer, or forgets the request where the server failed: then the next try is a new one.
func (a *answers) end(m *remembered, got answer, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if got.status >= 500 || got.status == 0 {
		delete(a.known, m.name)
		return
	}
	m.open, m.answer, m.until = false, got, now.Add(answersSpan)
	a.order = append(a.order, m)
	a.bytes += m.bytes()
	a.forget(now)
}

// forget drops the oldest answers while they are too old or too many. Under mu.
func (a *answers) forget(now time.Time) {
	for len(a.order) > 0 {
		m := a.order[0]
		if now.Before(m.until) && len(a.order) <= answersKeptMax && a.bytes <= answersBytesMax {
			return
		}
		a.order[0] = nil
		a.order = a.order[1:]
		a.bytes -= m.bytes()
		delete(a.known, m.name)
	}
	a.order = nil
}

const idempotencyKeyMax = 255 // characters

// idempotencyKey reads the header field; empty if there is none.
func idempotencyKey(values []string) (text string, p *problem) {
	if len(values) == 0 {
		return "", nil
	}
	wrong := len(values) > 1 || values[0] == "" || len(values[0]) > idempotencyKeyMax
	for _, c := range []byte(values[0]) {
		wrong = wrong || c <= ' ' || c > '~'
	}
	if wrong {
		return "", &problem{code: invalidRequest, detail: "Idempotency-Key: give it once, with 1 to 255 visible characters of ASCII"}
	}
	return values[0], nil
}
