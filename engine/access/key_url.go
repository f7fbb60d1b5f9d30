package access

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Times and bounds of keys at a URL.
const (
	readWait       = 5 * time.Second  // for one reading, all of it
	readPause      = 10 * time.Second // between two readings at least
	retryPauseMax  = time.Minute      // after readings that failed
	maxAgeLeast    = 5 * time.Minute
	maxAgeMost     = 24 * time.Hour
	maxAgeDefault  = time.Hour
	servesAway     = 24 * time.Hour // how long the last good set serves
	waitersMax     = 1024
	headerBytesMax = 64 << 10
)

// clock is the time that a KeyURL sees. Tests turn it by hand.
type clock struct {
	now   func() time.Time
	timer func(time.Duration) (due <-chan time.Time, stop func() bool)
	wait  time.Duration // for one reading; it is always real time, since sockets keep it
}

func realClock() clock {
	return clock{time.Now, func(d time.Duration) (<-chan time.Time, func() bool) {
		t := time.NewTimer(d)
		return t.C, t.Stop
	}, readWait}
}

// KeyURL keeps the public keys at a URL at hand. One goroutine reads them: at the start, whenever their max-age is over
// (from 5 minutes to 24 hours, else an hour), and once for all callers that wait for a key it does not have, at most every 10
// seconds. The last good set serves for a day while the URL cannot be read. A key that a reading does not have any more is
// good no more.
//
// Invariant: a caller that waits for a key gets an answer that a reading gave which began after the caller came. A reading
// that was under way may have been answered before the issuer added the key.
//
// What lost: to refuse an unknown kid at once while the ten seconds last. A stranger's token could then use up the reading
// that the issuer's next key needs, and good tokens would be refused; they wait instead, until their context ends; the
// refusal is then Unavailable, never Unauthorized.
//
// Owner: shared (mutex: mu).
type KeyURL struct {
	url    string
	client *http.Client
	clock  clock
	cancel context.CancelFunc
	done   chan struct{}
	asked  chan struct{} // of one: a caller waits for a reading

	mu       sync.Mutex
	set      *KeySet
	readAt   time.Time // when the reading of set began; before the first, when the URL was opened
	err      error     // of the last reading
	begun    uint64    // readings
	ended    uint64    // the number of the last one that ended
	failures uint64    // readings in all
	waiting  int
	wanted   bool
	changed  chan struct{} // closed when a reading ends
}

// OpenKeyURL begins to read keys at an https URL, or an http URL of this machine. It does not wait for the first reading; see
// Ready. The caller calls Close in the end.
func OpenKeyURL(address string) (*KeyURL, error) { return openKeyURL(address, nil, realClock()) }

func openKeyURL(address string, trust *tls.Config, c clock) (*KeyURL, error) {
	if err := CheckKeyURL(address); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	k := &KeyURL{
		url: address, clock: c, cancel: cancel, readAt: c.now(),
		done: make(chan struct{}), asked: make(chan struct{}, 1), changed: make(chan struct{}),
		client: &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, TLSClientConfig: trust, ForceAttemptHTTP2: true,
				MaxResponseHeaderBytes: headerBytesMax, MaxIdleConns: 1, IdleConnTimeout: readPause,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Timeout:       c.wait,
		},
	}
	go k.run(ctx)
	return k, nil
}

// CheckKeyURL reports why OpenKeyURL would refuse an address; nil if it would not.
func CheckKeyURL(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("the URL of the keys cannot be parsed")
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	switch {
	case host == "", u.Opaque != "":
		return errors.New("the URL of the keys has no host")
	case u.User != nil:
		return errors.New("the URL of the keys has a user or a password; public keys need none")
	case u.Fragment != "":
		return errors.New("the URL of the keys has a fragment, which no server sees")
	case u.Scheme == "https", u.Scheme == "http" && (host == "localhost" || ip != nil && ip.IsLoopback()):
		return nil
	}
	return errors.New("the URL of the keys is https, or http of this machine (localhost, 127.0.0.1, [::1])")
}

// Close ends the reading and all waiting. A second call has no effect.
func (k *KeyURL) Close() {
	k.cancel()
	<-k.done
	k.client.CloseIdleConnections()
}

// Ready reports whether there is a set that may serve: one was read, in the last day. Any goroutine.
func (k *KeyURL) Ready() bool {
	_, ready := k.keys(k.clock.now())
	return ready
}

// Missing says why no set may serve; "" if one may. Any goroutine.
func (k *KeyURL) Missing() string {
	if k.Ready() {
		return ""
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.ended == 0:
		return "the keys at jwt_jwks_url are being read for the first time"
	case k.set == nil:
		return fmt.Sprintf("the keys at jwt_jwks_url could not be read yet: %v", k.err)
	}
	return fmt.Sprintf("the keys at jwt_jwks_url could not be read for a day: %v", k.err)
}

// Age is for how long there was no good reading: since the latest one, or since the opening before the first. Any goroutine.
func (k *KeyURL) Age() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return max(0, k.clock.now().Sub(k.readAt))
}

// KeyReads are a KeyURL's counts.
//
// Owner: the caller.
type KeyReads struct {
	Readings uint64
	Failures uint64
	Keys     int
	Skipped  []string // the keys that were left out of the last good set, with the reasons
	Err      error    // of the last reading; nil if it was good
}

// Reads returns the counts since the start. Any goroutine.
func (k *KeyURL) Reads() KeyReads {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := KeyReads{Readings: k.ended, Failures: k.failures, Err: k.err}
	if k.set != nil {
		r.Keys, r.Skipped = k.set.Len(), k.set.Skipped()
	}
	return r
}

// keys returns the set that serves at a time, and whether there is one.
func (k *KeyURL) keys(now time.Time) (*KeySet, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.set == nil || now.Sub(k.readAt) >= servesAway {
		return nil, false
	}
	return k.set, true
}

var (
	errClosed  = errors.New("the server stops")
	errCrowded = errors.New("too many tokens wait for keys")
)

// await returns the set as soon as it is good for the caller, or nil after a reading that began after the call and still is
// not. An error says that there was no such reading, or that it failed.
func (k *KeyURL) await(ctx context.Context, good func(*KeySet) bool) (*KeySet, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.waiting >= waitersMax {
		return nil, errCrowded
	}
	k.waiting++
	defer func() { k.waiting-- }()
	came := k.begun
	for tried := (*KeySet)(nil); ; {
		// All three are of one reading: another may end while the lock is open.
		set, err, ended := k.set, k.err, k.ended
		if set != tried {
			k.mu.Unlock()
			fits := good(set) // it verifies signatures: not under the lock
			k.mu.Lock()
			if tried = set; fits {
				return set, nil
			}
		}
		switch {
		case ended > came:
			return nil, err
		case ended == k.ended:
			if err := k.waitReading(ctx); err != nil {
				return nil, err
			}
		}
	}
}

// waitReading asks for a reading, unless one is under way, and waits until it ends. Its caller holds mu.
func (k *KeyURL) waitReading(ctx context.Context) error {
	if k.begun == k.ended {
		k.wanted = true
		select {
		case k.asked <- struct{}{}:
		default:
		}
	}
	changed := k.changed
	k.mu.Unlock()
	defer k.mu.Lock()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-k.done:
		return errClosed
	}
}

// run reads whenever it is time, until the context ends.
func (k *KeyURL) run(ctx context.Context) {
	defer close(k.done)
	var began, next time.Time // next: when the set is old, or when a failed reading is repeated
	for pause := readPause; ; {
		now := k.clock.now()
		if due := k.due(began, next); due.After(now) {
			timer, stop := k.clock.timer(due.Sub(now))
			select {
			case <-timer:
			case <-k.asked:
			case <-ctx.Done():
				stop()
				return
			}
			stop()
			continue
		}
		began = now
		age, err := k.read(ctx, now)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			next, pause = began.Add(pause), min(2*pause, retryPauseMax)
			continue
		}
		next, pause = began.Add(age), readPause
	}
}

// due is when the next reading begins.
func (k *KeyURL) due(began, next time.Time) time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	if earliest := began.Add(readPause); k.wanted && !began.IsZero() && earliest.Before(next) {
		return earliest
	}
	return next
}

// read makes one reading, and wakes all that wait.
func (k *KeyURL) read(ctx context.Context, now time.Time) (age time.Duration, err error) {
	k.mu.Lock()
	k.begun++
	k.wanted = false // callers that come from here on want another
	k.mu.Unlock()
	set, age, err := k.fetch(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err = err; err != nil {
		k.failures++
	} else {
		k.set, k.readAt = set, now
	}
	k.ended = k.begun
	close(k.changed)
	k.changed = make(chan struct{})
	return age, err
}

func (k *KeyURL) fetch(ctx context.Context) (*KeySet, time.Duration, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("read keys: %w", err)
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := k.client.Do(request)
	if err != nil {
		return nil, 0, fmt.Errorf("read keys: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, 0, fmt.Errorf("read keys: the answer is %d; 200 is expected, and redirects are not followed", response.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, keysBytesMax+1))
	if err != nil {
		return nil, 0, fmt.Errorf("read keys: %w", err)
	}
	if !isObject(text) {
		return nil, 0, errors.New("read keys: the answer is not a JWK set")
	}
	set, err := ParseKeys(text)
	if err != nil {
		return nil, 0, fmt.Errorf("read keys: %w", err)
	}
	return set, maxAge(response.Header), nil
}

// maxAge is for how long an answer is fresh, within our bounds [RFC 9111 §5.2.2.1].
func maxAge(header http.Header) time.Duration {
	for _, line := range header.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			if !strings.EqualFold(name, "max-age") {
				continue
			}
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 64)
			switch {
			case errors.Is(err, strconv.ErrRange) || err == nil && seconds > uint64(maxAgeMost/time.Second):
				return maxAgeMost
			case err == nil:
				return max(maxAgeLeast, time.Duration(seconds)*time.Second)
			}
		}
	}
	return maxAgeDefault
}
