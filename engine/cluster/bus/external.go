package bus

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
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

// RedactURL is a list of URLs for logs and environments: without users and passwords, nor anything that could be a part of
// one. It does not parse: a password that was not encoded makes any part of a URL look like another.
func RedactURL(list string) string {
	last := strings.LastIndexByte(list, '@')
	var out []string
	for start := 0; start < len(list); {
		end := len(list)
		if next := nextURL.FindStringIndex(list[start:]); next != nil {
			end = start + next[0]
		}
		scheme, rest, found := strings.Cut(strings.TrimSpace(list[start:end]), "://")
		at := strings.LastIndexByte(rest, '@')
		host := plainHost.FindString(rest[at+1:])
		switch {
		case !found || scheme != "nats" && scheme != "tls":
			out = append(out, "(no URL)")
		case at < 0 && start < last: // the password may hold what looks like the next URL
			out = append(out, scheme+"://"+redacted)
		case at < 0 && host == "":
			out = append(out, "(no URL)")
		case at < 0:
			out = append(out, scheme+"://"+host)
		default:
			out = append(out, scheme+"://"+redacted+"@"+host)
		}
		start = end + 1
	}
	return strings.Join(out, ",")
}

const redacted = "xxxxx"

var (
	nextURL   = regexp.MustCompile(`,\s*(nats|tls)://`)
	plainHost = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?/?$`)
)

// credentials are the options that say who we are, by a file: user:password, a token, or credentials of NATS. The file is
// read at each connect. Error: it cannot be read now, or holds nothing.
func credentials(path string) ([]nats.Option, error) {
	if path == "" {
		return nil, nil
	}
	text, err := readCredentials(path)
	if err != nil {
		return nil, err
	}
	if strings.Contains(text, "BEGIN NATS USER JWT") {
		return []nats.Option{nats.UserCredentials(path)}, nil
	}
	if !strings.Contains(text, ":") {
		return []nats.Option{nats.TokenHandler(func() string {
			token, _ := readCredentials(path) // the server refuses an empty one, and the next attempt reads again
			return token
		})}, nil
	}
	return []nats.Option{nats.UserInfoHandler(func() (user, password string) {
		text, _ := readCredentials(path)
		user, password, _ = strings.Cut(text, ":")
		return user, password
	})}, nil
}

// ErrCredentials says that the file with the credentials is of no use.
var ErrCredentials = errors.New("write user:password, a token, or NATS credentials into the file, and let this user read it")

// CheckCredentials reports what is wrong with a file of credentials now. A name that could be the credentials themselves,
// written where the name of their file belongs, is not shown.
func CheckCredentials(path string) error {
	_, err := readCredentials(path)
	if err != nil && (!strings.Contains(path, "/") || strings.ContainsAny(path, ":@")) {
		return fmt.Errorf("it names no file that can be read, or one that is empty (the name is not shown, since it could be the secret itself): %w", ErrCredentials)
	}
	return err
}

func readCredentials(path string) (string, error) {
	raw, err := os.ReadFile(path)
	text := strings.TrimSpace(string(raw))
	switch {
	case err != nil:
		return "", fmt.Errorf("read credentials: %w: %w", err, ErrCredentials)
	case text == "":
		return "", fmt.Errorf("read credentials: %s is empty: %w", path, ErrCredentials)
	}
	return text, nil
}

// Address is a NATS server that is not ours, and who we are there.
type Address struct {
	URL         string // several are separated by commas
	Credentials string // a file; "" where the URL says who we are
}

// Tenancy is the use of an account of a NATS server that is not ours, until Close.
type Tenancy struct{ nc *nats.Conn }

// Occupy takes the account that a URL names, trying until ctx is done; whoever tries after us is told that it is taken,
// for as long as we live and are connected. The account must be able to carry messages of bytesMax. Errors: ErrOccupied,
// ErrNoJetStream, ErrTooSmall, ErrCredentials, nats.ErrAuthorization, ctx's. It waits half a second for the answer that it does not want.
func Occupy(ctx context.Context, at Address, bytesMax int) (*Tenancy, error) {
	url := at.URL
	known, err := credentials(at.Credentials)
	if err != nil {
		return nil, err
	}
	nc, err := connect(ctx, LinkOptions{URL: url}, append(known,
		nats.Name("parley"), nats.Timeout(dialTimeout), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait)))
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
