package bus

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// A bus that is not ours: a NATS server that runs already, with JetStream, and an account of it that nobody else uses.
// There a worker is who the URL says, not who it says by itself: the account is the boundary.

// Errors of Occupy.
var (
	// ErrOccupied says that another server uses the account.
	ErrOccupied = errors.New("another server uses this account of the NATS server: give each an account of its own")
	// ErrNoJetStream says that sessions and seats have no place to be.
	ErrNoJetStream = errors.New("the account has no JetStream: turn it on in the NATS server's configuration")
	// ErrTooSmall says that the messages which it takes are too small.
	ErrTooSmall = errors.New("raise max_payload in the NATS server's configuration")
)

// occupiedSubject is where the occupant of an account answers who asks.
const (
	occupiedSubject = "ledger.occupied"
	occupiedWait    = 500 * time.Millisecond
)

// RedactURL is a URL for logs: without passwords.
func RedactURL(list string) string {
	var out []string
	for text := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.TrimSpace(text))
		if err != nil {
			return "(no URL)"
		}
		out = append(out, u.Redacted())
	}
	return strings.Join(out, ",")
}

// Tenancy is the use of an account of a NATS server that is not ours, until Close.
type Tenancy struct{ nc *nats.Conn }

// Occupy takes the account that a URL names, trying until ctx is done; whoever tries after us is told that it is taken,
// for as long as we live and are connected. The account must be able to carry messages of bytesMax. Errors: ErrOccupied,
// ErrNoJetStream, ErrTooSmall, nats.ErrAuthorization, ctx's. It waits half a second for the answer that it does not want.
func Occupy(ctx context.Context, url string, bytesMax int) (*Tenancy, error) {
	nc, err := connect(ctx, LinkOptions{URL: url}, []nats.Option{
		nats.Name("parley"), nats.Timeout(dialTimeout), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait)})
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", RedactURL(url), err)
	}
	t := &Tenancy{nc}
	if err := t.settle(ctx, bytesMax); err != nil {
		nc.Close()
		return nil, fmt.Errorf("use %s: %w", RedactURL(url), err)
	}
	return t, nil
}

func (t *Tenancy) settle(ctx context.Context, bytesMax int) error {
	if most := int(t.nc.MaxPayload()); most < bytesMax {
		return fmt.Errorf("it takes messages of %d bytes, %d are needed: %w", most, bytesMax, ErrTooSmall)
	}
	js, err := jetstream.New(t.nc)
	if err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	switch _, err := js.AccountInfo(ctx); {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return ErrNoJetStream
	case err != nil:
		return fmt.Errorf("ask for jetstream: %w", err)
	}
	// We answer before we ask: of two that come at the same time at least one hears of the other.
	inbox := t.nc.NewRespInbox()
	if _, err := t.nc.Subscribe(occupiedSubject, func(m *nats.Msg) {
		if m.Reply != inbox {
			_ = m.Respond(nil) // who has no answer in time goes on: the account is as good as free
		}
	}); err != nil {
		return fmt.Errorf("answer for the account: %w", err)
	}
	answers, err := t.nc.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("ask for the account: %w", err)
	}
	defer answers.Unsubscribe()
	if err := t.nc.PublishRequest(occupiedSubject, inbox, nil); err != nil {
		return fmt.Errorf("ask for the account: %w", err)
	}
	for until := time.Now().Add(occupiedWait); ; {
		m, err := answers.NextMsg(time.Until(until))
		switch {
		case err == nil && m.Header.Get("Status") == "": // a 503 says that nobody listens
			return ErrOccupied
		case err != nil:
			return nil
		}
	}
}

// BytesMax is the largest message that the server takes, of NATS's own. Any goroutine.
func (t *Tenancy) BytesMax() int { return int(t.nc.MaxPayload()) }

// Close gives the account up.
func (t *Tenancy) Close() { t.nc.Close() }
