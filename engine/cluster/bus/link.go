package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// LinkOptions says how a worker reaches the bus.
//
// Owner: immutable after Dial.
type LinkOptions struct {
	URL       string         // "nats://127.0.0.1:4222"; unused with Local
	External  bool           // the URL names an external NATS server and our user there; Password is unused
	File      string         // with External: a file with our user, in place of the URL's; see Address
	Local     *Server        // a server in this process, instead of URL
	Instance  ident.Worker   // the number of this worker; not 0
	Sequencer bool           // the link is the sequencer's: it hears no streams, and Peers is unused; see Link.Sequence
	Password  string         // see Password, and SequencerPassword
	Peers     []ident.Worker // the instances that live already; those not listed are taken to be younger
	PeersWait time.Duration  // how long Dial waits to hear of Peers; 0 = 5 s
	RingBytes int            // how much is kept for receivers that missed it; 0 = 16 MiB
	Log       *slog.Logger   // nil = none
	Status    func(up bool)  // called when the bus is reached (first by Dial) or lost, in order; may be nil
}

const (
	ringBytesDefault = 16 << 20
	peersWaitDefault = 5 * time.Second
	// inboxBytesMax and inboxBatchesMax bound the batches that have arrived and wait for the receiver; beyond them NATS
	// drops batches, and the inbox asks for them again.
	inboxBytesMax   = 32 << 20
	inboxBatchesMax = 1 << 17

	reconnectWait   = 50 * time.Millisecond
	reconnectJitter = 25 * time.Millisecond
	dialTimeout     = 2 * time.Second
	// A connection without answers to pingsOutMax pings is closed, and the bus dialled again.
	pingEvery   = 2 * time.Second
	pingsOutMax = 3
	// writeTimeout is for the sender: a bus that does not read for so long counts as gone.
	writeTimeout = 5 * time.Second
	closeWait    = time.Second
)

// Link is a worker's connection to the bus: it publishes this worker's batches and delivers those of the others. It
// reconnects for ever.
//
// Its memory is bounded by RingBytes (and an eighth of it), inboxBytesMax, heldBytesMax, and a few batches.
//
// Owner: shared (mutex: mu, for inbox and timer).
type Link struct {
	nc     *nats.Conn
	log    *slog.Logger
	out    *outbox
	sender *sender

	mu     sync.Mutex
	inbox  *inbox
	timer  *time.Timer
	due    time.Time // when timer fires; zero where it is not set
	closed bool

	confirms   confirms
	sequencer  bool
	instance   ident.Worker
	up         atomic.Bool
	reconnects atomic.Uint64
}

// Stats counts the work of a link since Dial. Batches and bytes that are sent again are not counted.
//
// Owner: the caller of Link.Stats.
type Stats struct {
	Up                               bool
	BatchesOut, EntriesOut, BytesOut uint64
	BatchesIn, EntriesIn, BytesIn    uint64
	BytesUnsent                      uint64 // in the ring, not yet handed to the connection
	BatchesOverrun                   uint64 // left the ring before they were handed over: lost for all receivers
	Gaps                             uint64 // times that batches of a publisher were found missing
	BatchesRepaired                  uint64 // came in answer to a question
	BatchesLost                      uint64 // declared with Receiver.Lost
	BatchesDouble                    uint64 // came again, and were not delivered again
	BatchesMalformed                 uint64
	Reconnects                       uint64
}

// Dial connects to the bus, trying until ctx is done, and returns once it knows the highest batch of every peer: from
// then on each batch of a peer is delivered or declared lost. A peer that is silent for PeersWait is logged, and its
// batches before the first that arrives are declared lost. A wrong password fails at once. The receiver is called before
// Dial returns.
func Dial(ctx context.Context, opts LinkOptions, to Receiver) (*Link, error) {
	if err := opts.complete(); err != nil {
		return nil, fmt.Errorf("dial bus: %w", err)
	}
	l := &Link{log: opts.Log, out: newOutbox(opts.RingBytes), inbox: newInbox(to, opts.Peers), sequencer: opts.Sequencer, instance: opts.Instance}
	l.inbox.ask, l.inbox.arm = l.ask, l.arm
	ready := make(chan struct{})
	known, err := credentials(opts.File)
	if err != nil {
		return nil, fmt.Errorf("dial bus: %w", err)
	}
	nc, err := connect(ctx, opts, append(l.connOptions(opts, ready), known...))
	if err != nil {
		return nil, fmt.Errorf("dial bus: %w", err)
	}
	l.nc = nc
	l.out.limit(int(nc.MaxPayload()))
	l.sender = newSender(wire{nc.Publish, nc.IsConnected}, l.out, opts.Instance)
	l.up.Store(true)
	opts.Status(true)
	close(ready)
	if err := l.open(ctx, opts); err != nil {
		l.Close()
		return nil, fmt.Errorf("dial bus: %w", err)
	}
	return l, nil
}

func (o *LinkOptions) complete() error {
	if o.Instance == 0 {
		return errors.New("instance 0 names no worker: give this worker a number of its own")
	}
	if o.RingBytes == 0 {
		o.RingBytes = ringBytesDefault
	}
	if o.RingBytes < RingBytesMin || o.RingBytes > RingBytesMax {
		return fmt.Errorf("ring of %d bytes is out of range; give %d to %d", o.RingBytes, RingBytesMin, RingBytesMax)
	}
	if o.PeersWait == 0 {
		o.PeersWait = peersWaitDefault
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Sequencer {
		o.Peers = nil
	}
	if o.Status == nil {
		o.Status = func(bool) {}
	}
	return nil
}

// kind is what the link's user is.
func (o *LinkOptions) kind() kind {
	if o.Sequencer {
		return kindSequencer
	}
	return kindWorker
}

// inboxPrefix is where a user's answers from JetStream arrive.
func inboxPrefix(k kind, instance ident.Worker) string { return "_INBOX." + userName(k, instance) }

// connOptions are the options of NATS. The handlers wait for ready.
func (l *Link) connOptions(opts LinkOptions, ready <-chan struct{}) []nats.Option {
	return append(connOptions(opts),
		nats.NoEcho(),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			<-ready
			l.up.Store(false)
			if err != nil {
				l.log.Warn("the bus is away: messages for clients on other workers wait until it is back", "err", err)
			}
			opts.Status(false)
		}),
		nats.ReconnectHandler(func(*nats.Conn) {
			<-ready
			l.reconnects.Add(1)
			l.log.Info("the bus is back")
			l.greet()
			l.up.Store(true)
			opts.Status(true)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			l.log.Warn("the connection to the bus has a fault", "err", err)
		}),
	)
}

// connOptions are the options of any connection to the bus. NATS's default is to give up after 60 attempts.
func connOptions(opts LinkOptions) []nats.Option {
	list := []nats.Option{
		nats.Name(userName(opts.kind(), opts.Instance)),
		nats.CustomInboxPrefix(inboxPrefix(opts.kind(), opts.Instance)),
		nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(reconnectWait),
		nats.ReconnectJitter(reconnectJitter, reconnectJitter),
		nats.ReconnectBufSize(-1), // the ring takes its place: it knows which batches were sent
		nats.ReconnectOnFlusherError(),
		nats.FlusherTimeout(writeTimeout),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(pingsOutMax),
		nats.IgnoreAuthErrorAbort(),
	}
	if opts.External {
		return list // NATS may find other servers of its cluster, and reconnect to them
	}
	return append(list, nats.UserInfo(userName(opts.kind(), opts.Instance), opts.Password), nats.IgnoreDiscoveredServers())
}

// connect tries until it succeeds, ctx is done, or the password is wrong.
func connect(ctx context.Context, opts LinkOptions, options []nats.Option) (*nats.Conn, error) {
	if opts.Local != nil {
		options = append(options, nats.InProcessServer(opts.Local))
	}
	for {
		nc, err := nats.Connect(opts.URL, options...)
		if err == nil || errors.Is(err, nats.ErrAuthorization) {
			return nc, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w (last attempt: %w)", ctx.Err(), err)
		case <-time.After(reconnectWait):
		}
	}
}

// open subscribes, starts the sender, and waits for the peers.
func (l *Link) open(ctx context.Context, opts LinkOptions) error {
	go l.sender.run()
	me := strconv.Itoa(int(opts.Instance))
	handlers := map[string]nats.MsgHandler{"q.*." + me: l.onQuestion, "q.*.0": l.onQuestion}
	if !opts.Sequencer {
		handlers["p.*"], handlers["a.*."+me] = l.onStream, l.onAnswer
	}
	for subject, handle := range handlers {
		sub, err := l.nc.Subscribe(subject, handle)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		if err := sub.SetPendingLimits(inboxBatchesMax, inboxBytesMax); err != nil {
			return fmt.Errorf("bound %s: %w", subject, err)
		}
	}
	// The subscriptions are in front of the greeting on the wire, so that the answers to it find them.
	l.greet()
	patience, cancel := context.WithTimeout(ctx, opts.PeersWait)
	defer cancel()
	// Where this fails the connection broke, and its return repeats the subscriptions and the greeting.
	_ = l.nc.FlushWithContext(patience)
	select {
	case <-l.inbox.settled:
	case <-patience.Done():
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.mu.Lock()
		silent := l.inbox.stopWaiting()
		l.mu.Unlock()
		l.log.Warn("some workers do not answer yet: this worker does not get the messages that they send until they answer", "instances", silent)
	}
	return nil
}

// greet asks all publishers for their highest batch, and announces ours. The sequencer hears no publisher.
func (l *Link) greet() {
	l.sender.want(func(r *requests) { r.hello, r.top = !l.sequencer, true })
}

// Append adds an entry to the batch that is being filled. The bytes are copied. It never waits for the bus and allocates
// nothing; the entry leaves with the next Flush, or when the batch is full (64 KiB). The only error is ErrEntryTooLarge.
// Any goroutine; the entries of one goroutine stay in order.
func (l *Link) Append(entry []byte) error {
	full, err := l.out.append(entry)
	if full {
		l.sender.ring()
	}
	return err
}

// Flush has the sender publish the appended entries, and does not wait: call it at the end of a turn. It costs next to
// nothing if there are none. Any goroutine.
func (l *Link) Flush() {
	if l.out.flush() {
		l.sender.ring()
	}
}

// Unsent is how many bytes wait for the connection: it grows while the bus is away or slower than we are. Beyond
// RingBytes the oldest batches are lost for all receivers, and declared. Any goroutine.
func (l *Link) Unsent() int {
	l.out.mu.Lock()
	defer l.out.mu.Unlock()
	return l.out.unsent
}

// Forget says that a peer's process is gone. Batches of it that have reached the bus are still delivered, for a quarter
// of a second; then the missing ones are declared lost, Receiver.Gone is called, and later ones are ignored. Any
// goroutine but the receiver's.
func (l *Link) Forget(instance ident.Worker) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inbox.forget(instance, time.Now())
}

// Conn is the connection itself, for the ledger. It lives as long as the link.
func (l *Link) Conn() *nats.Conn { return l.nc }

// Up reports whether the bus is connected, as far as the link knows. Any goroutine.
func (l *Link) Up() bool { return l.up.Load() }

// Stats counts since Dial. Any goroutine but the receiver's.
func (l *Link) Stats() Stats {
	s := Stats{Up: l.up.Load(), Reconnects: l.reconnects.Load()}
	l.out.mu.Lock()
	s.BatchesOut, s.EntriesOut, s.BytesOut = l.out.ring.top, l.out.appended, l.out.bytes
	s.BytesUnsent, s.BatchesOverrun = uint64(l.out.unsent), l.out.overrun
	l.out.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.inbox.count
	s.BatchesIn, s.EntriesIn, s.BytesIn = c.batches, c.entries, c.bytes
	s.Gaps, s.BatchesRepaired, s.BatchesLost = c.gaps, c.repaired, c.lost
	s.BatchesDouble, s.BatchesMalformed = c.doubles, c.malformed
	return s
}

// Close sends the appended entries, waiting a second for it at most, and ends the connection. The receiver is not called
// any more once Close has returned. Any goroutine but the receiver's; once.
func (l *Link) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	if l.nc.IsConnected() {
		l.Flush()
		l.awaitSent(ctx)
		_ = l.nc.FlushWithContext(ctx) // without an answer in time, the entries are lost
	}
	l.mu.Lock()
	l.closed = true
	if l.timer != nil {
		l.timer.Stop()
	}
	l.mu.Unlock()
	close(l.sender.stop)
	l.nc.Close()
	<-l.sender.stopped
	l.up.Store(false)
}

// awaitSent waits until the sender has handed all batches over.
func (l *Link) awaitSent(ctx context.Context) {
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for l.out.flush() || l.Unsent() > 0 {
		select {
		case <-ctx.Done():
			return
		case <-poll.C:
		}
	}
}
