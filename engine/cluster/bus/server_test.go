package bus

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/parleyd/parley/protocol/ident"
)

// A wrong password, another's password, a second spelling of a name: each is refused, and Dial fails at once instead of
// trying again.
func TestStrangersAreRefused(t *testing.T) {
	s := startServer(t)
	for user, password := range map[string]string{
		"":       "",
		"w1":     Password(secret, 2),
		"w2":     "",
		"w01":    Password(secret, 1),
		"w0":     Password(secret, 0),
		"w65537": Password(secret, 1),
		"1":      Password(secret, 1),
		"w3":     Password([]byte("another secret of 16 bytes"), 3),
		"s1":     Password(secret, 1),
		"s01":    SequencerPassword(secret, 1),
		"w4":     SequencerPassword(secret, 4),
		"sw5":    SequencerPassword(secret, 5),
	} {
		nc, err := nats.Connect(s.URL(), nats.UserInfo(user, password))
		if !errors.Is(err, nats.ErrAuthorization) {
			t.Errorf("user %q: %v, want a refusal", user, err)
		}
		if nc != nil {
			nc.Close()
		}
	}
	opts := options(s.URL(), 1)
	opts.Password = Password(secret, 2)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := Dial(ctx, opts, newWitness().receiver()); !errors.Is(err, nats.ErrAuthorization) || ctx.Err() != nil {
		t.Errorf("%v, want a refusal at once", err)
	}
}

// violations connects as a user and collects the server's permission errors.
func violations(t *testing.T, s *Server, as LinkOptions) (nc *nats.Conn, said chan string) {
	said = make(chan string, 100)
	nc, err := nats.Connect(s.URL(), append(connOptions(as),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { said <- err.Error() }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, said
}

// refused checks that a user of options may neither publish nor subscribe to some subjects.
func refused(t *testing.T, s *Server, as LinkOptions, publish, subscribe []string) {
	t.Helper()
	nc, said := violations(t, s, as)
	expect := func(verb, subject string) {
		t.Helper()
		select {
		case v := <-said:
			if !strings.Contains(strings.ToLower(v), "permissions violation for "+verb+" to \""+strings.ToLower(subject)+"\"") {
				t.Errorf("%s %s: %s", verb, subject, v)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s %s is allowed", verb, subject)
		}
	}
	for _, subject := range publish {
		if err := nc.Publish(subject, lateBatch(1)); err != nil {
			t.Fatal(err)
		}
		expect("publish", subject)
	}
	for _, subject := range subscribe {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		expect("subscription", subject)
	}
}

// A user can only be itself, and can do nothing that a worker need not do: it is neither another worker nor the sequencer.
func TestUsersAreThemselves(t *testing.T) {
	s := startServer(t)
	g := newWitness()
	dial(t, options(s.URL(), 3), g)
	refused(t, s, LinkOptions{Instance: 1, Password: Password(secret, 1)}, []string{
		"p.2", "q.2.3", "a.2.3", "p", "p.1.1", "a.11.3", "$KV.others.x", "$JS.API.STREAM.CREATE.OTHERS",
		"$JS.API.STREAM.DELETE.OTHERS", "$JS.API.ACCOUNT.PURGE.X", "_INBOX.w2.x", "$SYS.REQ.SERVER.PING",
		"o.2", "o", "o.1.1", "r.1.3", "r.2.3", "r.2.1",
	}, []string{">", "a.>", "a.*.2", "a.*.*", "q.*.2", "_INBOX.>", "_INBOX.w2.>", "$KV.sessions.>", "$SYS.>", "o.*", "o.1", "r.*.2", "r.*.*", "r.>"})
	refused(t, s, LinkOptions{Instance: 9, Sequencer: true, Password: SequencerPassword(secret, 9)}, []string{
		"p.2", "a.2.3", "r.2.3", "o.9", "o.1", "$KV.sessions.x", "$JS.API.INFO", ledgerWanted,
	}, []string{">", "p.*", "a.*.9", "r.*.9", "_INBOX.w9.>", ledgerWanted, ledgerChanged})
	if g.has(2, 1) || g.has(1, 1) {
		t.Error("w3 has got a batch that w1 published as somebody else")
	}
}

// The server listens on 127.0.0.1 only, at a port outside the kernel's range for dials.
func TestListensOnLoopbackOnly(t *testing.T) {
	s := startServer(t)
	host, port, err := net.SplitHostPort(s.Addr())
	if err != nil || host != "127.0.0.1" {
		t.Fatalf("address %q", s.Addr())
	}
	c, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	low, high := ephemeralPorts()
	if n, _ := strconv.Atoi(port); n >= low && n <= high || n < portMin {
		t.Errorf("port %d lies in %d to %d", n, low, high)
	}
	others := []string{"127.0.0.2", "::1"}
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() {
			others = append(others, ip.IP.String())
		}
	}
	for _, ip := range others {
		if c, err := net.DialTimeout("tcp", net.JoinHostPort(ip, port), time.Second); err == nil {
			_ = c.Close()
			t.Errorf("it listens on %s too", ip)
		}
	}
}

// Over a restart on the same port, links come back and the ledger's records are there.
func TestRestartKeepsPortAndRecords(t *testing.T) {
	noLeaks(t)
	opts := ServerOptions{Dir: t.TempDir(), Secret: secret}
	s, err := Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	g := newWitness()
	l := dial(t, options(s.URL(), 1), newWitness())
	dial(t, options(s.URL(), 2, 1), g)
	kv := sessions(t, l.Conn())
	if _, err := kv.PutString(t.Context(), "1.abc", "ann"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	eventually(t, "the loss to be seen", func() bool { return !l.Up() })
	appendEntry(t, l, 0, 100)
	l.Flush()
	opts.Port = s.opts.Port
	again, err := Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	eventually(t, "the entry of the meantime", func() bool { return g.has(1, 1) })
	eventually(t, "the link to be up", l.Up)
	got, err := kv.Get(t.Context(), "1.abc")
	if err != nil || string(got.Value()) != "ann" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Start(opts); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a second server on the port: %v", err)
	}
	g.check(t)
}

// sessions makes one of the ledger's buckets and watches it, as the permissions allow.
func sessions(t *testing.T, nc *nats.Conn) jetstream.KeyValue {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{
		Bucket: "sessions", Storage: jetstream.FileStorage, LimitMarkerTTL: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// The ledger's tools work under a worker's permissions: create, compare-and-set, watch, list, delete.
func TestLedgerMayUseItsBuckets(t *testing.T) {
	s := startServer(t)
	l := dial(t, options(s.URL(), 5), newWitness())
	kv := sessions(t, l.Conn())
	watch, err := kv.WatchAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	rev, err := kv.Create(t.Context(), "5.t", []byte("a"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Update(t.Context(), "5.t", []byte("b"), rev); err != nil {
		t.Error(err)
	}
	if _, err := kv.Update(t.Context(), "5.t", []byte("c"), rev); err == nil {
		t.Error("a stale compare-and-set succeeds")
	}
	for seen := ""; seen != "b"; { // "a" may have been overwritten before it was sent
		select {
		case e := <-watch.Updates():
			if e != nil {
				seen = string(e.Value())
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the watcher sees nothing: the link's connection must not swallow the ledger's messages")
		}
	}
	if keys, err := kv.Keys(t.Context()); err != nil || len(keys) != 1 {
		t.Errorf("%v, %v", keys, err)
	}
	if err := kv.Purge(t.Context(), "5.t"); err != nil {
		t.Error(err)
	}
	if _, err := kv.Get(t.Context(), "5.t"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		t.Errorf("%v", err)
	}
}

// A server without a port serves links and the ledger of its own process.
func TestLocalServer(t *testing.T) {
	noLeaks(t)
	s, err := Start(ServerOptions{Dir: t.TempDir(), Secret: secret, Local: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if s.Addr() != "" {
		t.Errorf("it listens on %s", s.Addr())
	}
	nc, err := s.Connect(9)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := sessions(t, nc).PutString(t.Context(), "9.x", "y"); err != nil {
		t.Error(err)
	}
	g := newWitness()
	opts := options("", 1)
	opts.Local = s
	a := dial(t, opts, newWitness())
	opts.Instance, opts.Password, opts.Peers = 2, Password(secret, 2), []ident.Worker{1}
	dial(t, opts, g)
	appendEntry(t, a, 0, 100)
	a.Flush()
	eventually(t, "the entry", func() bool { return g.has(1, 1) })
}

// The error of a server that cannot start says what the operator can change.
func TestStartErrors(t *testing.T) {
	for want, opts := range map[string]ServerOptions{
		"no directory":         {Secret: secret},
		"too short":            {Dir: t.TempDir(), Secret: []byte("short")},
		"not a directory":      {Dir: "server.go", Secret: secret},
		"dial bus: instance 0": {},
	} {
		var err error
		if opts.Dir == "" && opts.Secret == nil {
			_, err = Dial(t.Context(), LinkOptions{}, Receiver{})
		} else {
			_, err = Start(opts)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Silent connections of strangers are bounded in number, and do not disturb the workers.
func TestStrangersAreBounded(t *testing.T) {
	s := startServer(t)
	g := newWitness()
	a := dial(t, options(s.URL(), 1), newWitness())
	opts := options(s.URL(), 2)
	opts.Peers = []ident.Worker{1}
	dial(t, opts, g)
	const many = connsMax + 20 // some are greeted before they are counted
	var last net.Conn
	for range many {
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = c.Read(make([]byte, 1))
		last = c
	}
	told, _ := io.ReadAll(last) // greeted first, and then sent away
	if !strings.Contains(string(told), "maximum connections exceeded") {
		t.Errorf("the last of %d strangers is told %q", many, told)
	}
	appendEntry(t, a, 0, 100)
	a.Flush()
	eventually(t, "the entry", func() bool { return g.has(1, 1) })
}
