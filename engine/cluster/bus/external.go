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

// An external bus is a NATS server, with JetStream, that the operator runs. This server needs an account of its own
// there. All workers use the user of the URL or of the credentials' file: the account is the boundary, not the instance.

// Errors of TakeAccount.
var (
	// ErrAccountTaken says that another server uses the account.
	ErrAccountTaken = errors.New("another server uses this account of the NATS server: give each an account of its own")
	// ErrNoJetStream says that the account cannot store sessions and seats.
	ErrNoJetStream = errors.New("the account has no JetStream: turn it on in the NATS server's configuration")
	// ErrTooSmall says that the server's largest message is too small for ours.
	ErrTooSmall = errors.New("raise max_payload in the NATS server's configuration")
)

// On accountSubject, the server that uses an account answers others that ask whether it is free.
const (
	accountSubject = "ledger.occupied"
	accountWait    = 500 * time.Millisecond
)

// RedactURL makes a list of URLs fit for logs and environments: it removes users, passwords, and all parts that could
// belong to one. It does not parse: a password that was not encoded makes any part of a URL look like another.
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
		case at < 0 && start < last: // the password may contain text that looks like the next URL
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

// credentials makes the options for a file with user:password, a token, or credentials of NATS. The file is read at each
// connect. Error: the file cannot be read now, or is empty.
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
			token, _ := readCredentials(path) // the server refuses an empty token, and the next attempt reads again
			return token
		})}, nil
	}
	return []nats.Option{nats.UserInfoHandler(func() (user, password string) {
		text, _ := readCredentials(path)
		user, password, _ = strings.Cut(text, ":")
		return user, password
	})}, nil
}

// ErrCredentials says that the file with the credentials is missing, unreadable or empty.
var ErrCredentials = errors.New("write user:password, a token, or NATS credentials into the file, and let this user read it")

// CheckCredentials returns an error if a file of credentials cannot be used now. The error omits a name that could be the
// credentials themselves, given by mistake in place of their file's name.
func CheckCredentials(path string) error {
	_, err := readCredentials(path)
	if err != nil && (!strings.Contains(path, "/") || strings.ContainsAny(path, ":@")) {
		return fmt.Errorf("the file cannot be read, or is empty (its name is not shown, since it could be the secret itself): %w", ErrCredentials)
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

// Address is an external NATS server, and our user there.
type Address struct {
	URL         string // several are separated by commas
	Credentials string // a file; "" where the URL has the user
}

// Account is the exclusive use of an account of an external NATS server, until Close.
type Account struct{ nc *nats.Conn }

// TakeAccount takes the account of an address, trying until ctx is done. While this process lives and is connected, later
// calls by other servers fail with ErrAccountTaken. The account must be able to carry messages of bytesMax. Errors:
// ErrAccountTaken, ErrNoJetStream, ErrTooSmall, ErrCredentials, nats.ErrAuthorization, ctx's. A call that succeeds takes half
// a second, in which another server could object.
func TakeAccount(ctx context.Context, at Address, bytesMax int) (*Account, error) {
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
	a := &Account{nc}
	if err := a.take(ctx, bytesMax); err != nil {
		nc.Close()
		return nil, fmt.Errorf("use %s: %w", RedactURL(url), err)
	}
	return a, nil
}

func (a *Account) take(ctx context.Context, bytesMax int) error {
	if most := int(a.nc.MaxPayload()); most < bytesMax {
		return fmt.Errorf("messages may have %d bytes, %d are needed: %w", most, bytesMax, ErrTooSmall)
	}
	js, err := jetstream.New(a.nc)
	if err != nil {
		return fmt.Errorf("open jetstream: %w", err)
	}
	switch _, err := js.AccountInfo(ctx); {
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return ErrNoJetStream
	case err != nil:
		return fmt.Errorf("ask for jetstream: %w", err)
	}
	// We answer before we ask: of two servers that start at the same time, at least one hears of the other.
	inbox := a.nc.NewRespInbox()
	if _, err := a.nc.Subscribe(accountSubject, func(m *nats.Msg) {
		if m.Reply != inbox {
			_ = m.Respond(nil) // a server without an answer in time takes the account as free
		}
	}); err != nil {
		return fmt.Errorf("answer for the account: %w", err)
	}
	answers, err := a.nc.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("ask for the account: %w", err)
	}
	defer answers.Unsubscribe()
	if err := a.nc.PublishRequest(accountSubject, inbox, nil); err != nil {
		return fmt.Errorf("ask for the account: %w", err)
	}
	for until := time.Now().Add(accountWait); ; {
		m, err := answers.NextMsg(time.Until(until))
		switch {
		case err == nil && m.Header.Get("Status") == "": // NATS answers 503 where no server listens
			return ErrAccountTaken
		case err != nil:
			return nil
		}
	}
}

// BytesMax is the largest message that the NATS server takes, in bytes. Any goroutine.
func (a *Account) BytesMax() int { return int(a.nc.MaxPayload()) }

// Close frees the account for other servers.
func (a *Account) Close() { a.nc.Close() }
