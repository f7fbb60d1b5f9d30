package verify

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/parleyd/parley/cmd/parley/verify/caller"
)

// Backends publish and act over the HTTP API, each on a connection of its own. A request with an Idempotency-Key is sent again
// at random: after its connection was cut, after a refusal that says that nothing was sent, and after its answer. It must take
// effect once. The memory of keys ends with the api process: from then on a request that was cut is not sent again, and one
// that had been sent again may have taken effect twice.

// backends are the backends of a run.
//
// Owner: the checker; the goroutines of lines send on done.
type backends struct {
	all     []*backend
	done    chan *backend
	secret  []byte   // of tokens
	revoked [][]byte // handshakes with tokens that are good no more
	series  map[int]*series
	byUser  map[string][]*actor
	life    int // of the api process: counts on when it may have been replaced
	keys    int // Idempotency-Keys so far
	end     context.CancelFunc
}

// backendsMany is the number of backends.
const backendsMany = 6

// A backend is one program that uses the API. It has one exchange under way at a time, of one request or of several.
//
// Owner: the checker.
type backend struct {
	k      *checker
	index  int
	rng    *rand.Rand
	asks   chan<- []*caller.Exchange
	sent   []*ask // under way
	queue  []*ask // to be sent again, one at a time: a later one must not overtake
	series *series
	used   *ask // a request whose key was used
}

// String names a backend in findings.
func (b *backend) String() string { return fmt.Sprintf("backend%d", b.index) }

// ask is a request with its purpose.
//
// Owner: its backend.
type ask struct {
	caller.Exchange
	what        string
	posts       []*post
	count       *count             // of a publish that is counted
	want        string             // the code of the problem that must be the answer; empty: none
	then        func(m *apiAnswer) // gets the answer to an action; nil if its outcome is unknown
	life        int                // of the api process when it was first sent
	tries       int
	ends        []string      // of the tries so far
	at          time.Duration // granted when it was first sent
	late        bool          // a finding has told so
	again       bool          // it has been answered, and is sent again
	first       []byte
	firstStatus int
}

// String describes a request in findings.
func (a *ask) String() string {
	counted := ""
	if a.count != nil {
		counted = "counted "
	}
	return fmt.Sprintf("a %s%s (its tries: %s)", counted, a.what, strings.Join(a.ends, ", "))
}

// end says how a try ended.
func (a *ask) end() string {
	if a.Err != nil {
		return a.Err.Error()
	}
	if m := a.read(); m.Code != "" {
		return m.Code
	}
	if a.Replay {
		return "replay"
	}
	return strconv.Itoa(a.Status)
}

// apiAnswer is an answer of the API, or a part of one.
//
// Owner: immutable.
type apiAnswer struct {
	Code       string                     `json:"code"` // of a problem
	Detail     string                     `json:"detail"`
	Recipients *int                       `json:"recipients"`
	Joined     *int                       `json:"joined"`
	Left       *int                       `json:"left"`
	Closed     *int                       `json:"closed"`
	Delayed    bool                       `json:"delayed"`
	Partial    []json.RawMessage          `json:"partial"`
	Attributes map[string]json.RawMessage `json:"attributes"`
	Results    []apiAnswer                `json:"results"`
	Seq        *uint64                    `json:"seq"`
	Epoch      string                     `json:"epoch"`
}

// startBackends begins the backends of a run.
func (k *checker) startBackends(ctx context.Context, at *caller.Target) {
	ctx, end := context.WithCancel(ctx)
	k.api = &backends{secret: at.Secret, done: make(chan *backend, backendsMany), series: map[int]*series{}, byUser: map[string][]*actor{}, end: end}
	for i := range backendsMany {
		asks := make(chan []*caller.Exchange, 1)
		b := &backend{k: k, index: i, rng: rand.New(rand.NewPCG(k.opt.Seed, 1<<32+uint64(i))), asks: asks}
		k.api.all = append(k.api.all, b)
		go at.Run(ctx, asks, func() { k.api.done <- b })
	}
	for _, a := range k.actors {
		if a.user != "" {
			k.api.byUser[a.user] = append(k.api.byUser[a.user], a)
		}
	}
}

// stop ends the lines.
func (x *backends) stop() {
	x.end()
	for _, b := range x.all {
		close(b.asks)
	}
}

// hear handles the answers that have come.
func (x *backends) hear() {
	for {
		select {
		case b := <-x.done:
			b.heard()
		default:
			return
		}
	}
}

// act makes a backend without a request under way do something.
func (x *backends) act(rng *rand.Rand) {
	if b := x.all[rng.IntN(len(x.all))]; b.idle() {
		b.perform()
	}
}

func (b *backend) idle() bool { return len(b.sent) == 0 && len(b.queue) == 0 }

// idle reports whether no request is under way.
func (x *backends) idle() bool {
	for _, b := range x.all {
		if !b.idle() {
			return false
		}
	}
	return true
}

// silent reports requests whose answers are overdue.
func (x *backends) silent(margin time.Duration) {
	for _, b := range x.all {
		for _, a := range b.sent {
			if k := b.k; !a.late && k.granted-a.at > k.opt.Patience+margin+askSpan {
				a.late = true
				k.found("silent", nil, nil, fmt.Sprintf("%v asked %s %v ago and is not answered: %.200s", b, a.what, (k.granted-a.at).Round(time.Millisecond), a.Body))
			}
		}
	}
}

// askSpan is how long the API itself waits for workers.
const askSpan = 5 * time.Second

// send carries out requests, all at once.
func (b *backend) send(list ...*ask) {
	k := b.k
	exchanges := make([]*caller.Exchange, 0, len(list))
	repeatable := !slices.ContainsFunc(list, func(a *ask) bool { return a.Key == "" && a.Body != nil })
	for _, a := range list {
		if a.tries == 0 {
			a.life, a.at = k.api.life, k.granted
			k.report.Done["api "+a.what]++
		}
		a.tries++
		if a.Leave = 0; repeatable && a.tries < 3 && b.rng.IntN(6) == 0 {
			a.Leave = time.Duration(1 + b.rng.IntN(int(leaveMost)))
		}
		exchanges = append(exchanges, &a.Exchange)
	}
	b.sent = list
	b.asks <- exchanges
}

// leaveMost is the longest time after which a backend cuts a connection without having an answer.
const leaveMost = 4 * time.Millisecond

// heard handles the end of an exchange. The answers come in the order of the requests.
func (b *backend) heard() {
	list := b.sent
	b.sent = nil
	alone := len(list) == 1
	for _, a := range list {
		a.ends = append(a.ends, a.end())
	}
	for i, a := range list {
		switch {
		case a.Err != nil:
			b.unanswered(list[i:])
			return
		case alone && a.Key != "" && b.mayTry(a) && b.refusedForNow(a):
			b.queue = append([]*ask{a}, b.queue...)
			b.k.in(againAfter, b.goOn)
			return
		default:
			b.answered(a)
		}
	}
	b.goOn()
}

const (
	againAfter = 20 * time.Millisecond
	triesMax   = 50 // an earlier try may be under way for seconds
)

// mayTry reports whether a request may be sent again without being carried out twice.
func (b *backend) mayTry(a *ask) bool { return a.life == b.k.api.life && a.tries < triesMax }

// refusedForNow reports whether the answer says that nothing was done yet.
func (b *backend) refusedForNow(a *ask) bool {
	m := a.read()
	return m.Code == "idempotency_in_progress" && a.tries > 1 || m.Code == "overloaded" && a.want == ""
}

// unanswered handles requests whose connection ended before they were answered.
func (b *backend) unanswered(list []*ask) {
	k := b.k
	if a := list[0]; a.Err != caller.ErrLeft && !k.disturbed() && a.life == k.api.life && !k.over {
		k.found("refused", nil, nil, fmt.Sprintf("%v asked %s and gets no answer: %v", b, a.what, a.Err))
	}
	if !errors.Is(list[0].Err, caller.ErrLeft) {
		k.api.life++ // its process may have ended
	}
	if b.mayTry(list[0]) {
		k.report.Done["api cut"]++
		b.queue = append(list, b.queue...)
		b.goOn()
		return
	}
	for _, a := range append(list, b.queue...) {
		k.report.Done["api unanswered"]++
		for _, p := range a.posts {
			p.fate = uncertain
			if a.tries > 1 {
				p.fate = repeated
			}
		}
		if a.then != nil && !a.again {
			a.then(nil)
		}
	}
	b.queue = nil
	if b.series != nil {
		b.series.ended = true
		b.series = nil
	}
}

// goOn sends the next request that is to be sent again.
func (b *backend) goOn() {
	if len(b.sent) > 0 || len(b.queue) == 0 {
		return
	}
	a := b.queue[0]
	b.queue = b.queue[1:]
	switch {
	case b.mayTry(a):
	case a.again: // it has its answer
		b.goOn()
		return
	default:
		a.Err = caller.ErrLeft
		b.unanswered([]*ask{a})
		return
	}
	b.k.report.Done["api sent again"]++
	b.send(a)
}

// read reads the answer.
func (a *ask) read() (m apiAnswer) {
	if err := json.Unmarshal(a.Text, &m); err != nil {
		m.Code = "no JSON: " + err.Error()
	}
	return m
}

// answered handles an answer.
func (b *backend) answered(a *ask) {
	k := b.k
	k.report.Checked["answers of the api"]++
	if a.again {
		b.replayed(a)
		return
	}
	m := a.read()
	if a.life != k.api.life && a.tries > 1 { // an earlier try may have taken effect in the process that was killed
		for _, p := range a.posts {
			p.fate = repeated
		}
	} else if a.what == "batch" && a.Status == 200 {
		for i, p := range a.posts {
			if i < len(m.Results) {
				b.decided(a, p, &m.Results[i])
			}
		}
		if len(m.Results) != len(a.posts) {
			b.complain(a, "wants %d results", len(a.posts))
		}
	} else {
		for _, p := range a.posts {
			b.decided(a, p, &m)
		}
	}
	if a.then != nil {
		a.then(&m)
	}
	if a.Key != "" && a.want == "" && a.Status < 500 && a.life == k.api.life {
		b.used = a
		if b.rng.IntN(6) == 0 {
			a.again, a.first, a.firstStatus = true, a.Text, a.Status
			b.queue = append(b.queue, a)
		}
	}
}

// decided records the outcome of a publish.
func (b *backend) decided(a *ask, p *post, m *apiAnswer) {
	k := b.k
	switch {
	case a.want != "" && a.life != k.api.life: // the key was forgotten
		p.fate = repeated
	case a.want != "":
		p.fate = refused
		if m.Code != a.want {
			b.complain(a, "wants %s", a.want)
		}
	case m.Code == "":
		p.fate, p.delayed = accepted, m.Delayed
		if p.delayed && a.life != k.api.life {
			p.fate = uncertain // the process that had it was killed
		}
		b.counted(a, m)
	case m.Code == "overloaded":
		p.fate = refused
		k.report.Done["api overloaded"]++
	case m.Code == "unavailable":
		p.fate = uncertain
		if a.tries > 1 {
			p.fate = repeated
		}
		b.unavailable(a)
	default:
		p.fate = refused
		b.complain(a, "it must be carried out")
	}
	b.takesNumber(a, p, m)
}

// unavailable checks a refusal for which some disturbance must be the cause.
func (b *backend) unavailable(a *ask) {
	b.k.report.Done["api unavailable"]++
	if !b.k.disturbed() && a.at > b.k.restUntil {
		b.complain(a, "nothing was disturbed")
	}
}

// counted has the count of a publish checked.
func (b *backend) counted(a *ask, m *apiAnswer) {
	k, n := b.k, a.count
	switch {
	case n == nil && m.Recipients == nil:
	case n == nil || m.Recipients == nil:
		b.complain(a, "the number of recipients: wanted is %v", n != nil)
	case k.disturbed() || a.at <= k.restUntil || m.Partial != nil || a.tries > 1:
		k.report.Done["counts not judged"]++
	default:
		n.got, n.due = *m.Recipients, k.now.UnixNano()+countWait
		n.most += n.room.possible + n.room.removals - n.from.removals
		for s := range n.room.members {
			if s.awaited { // on its old worker, and on its new one before we read so
				n.most++
			}
		}
		k.counts = append(k.counts, n)
	}
}

// replayed checks the answer to a request that was answered before.
func (b *backend) replayed(a *ask) {
	k := b.k
	k.report.Checked["replays"]++
	if a.life != k.api.life {
		for _, p := range a.posts {
			p.fate = repeated
		}
		return
	}
	if !a.Replay || a.Status != a.firstStatus || !bytes.Equal(a.Text, a.first) {
		b.complain(a, "it is the answer to a second try with one key; replay is %v, the first was %d %.200s", a.Replay, a.firstStatus, a.first)
	}
}

// complain reports a wrong answer.
func (b *backend) complain(a *ask, format string, args ...any) {
	b.k.found("answer", nil, nil, fmt.Sprintf("%v asked %s (%.200s) and is answered %d %.300s: ", b, a.what, a.Body, a.Status, a.Text)+fmt.Sprintf(format, args...))
}
