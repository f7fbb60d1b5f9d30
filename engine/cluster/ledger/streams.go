package ledger

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The buckets. They are laid out as JetStream's key-value buckets, so its tools can look into them.
const (
	sessionBucket = "sessions"
	seatBucket    = "seats"
	sharedBucket  = "shared" // what every worker follows: created rooms, deaths, starts
)

// changesPrefix is where the bus republishes what was stored in sharedBucket.
const changesPrefix = "ledger.changed."

// birth is the record of a start of the server: what was in the streams before belongs to the dead.
type birth struct {
	Sessions uint64 `json:"sessions"` // last sequence before it
	Seats    uint64 `json:"seats"`
}

// encodeName makes any name a token of a subject.
func encodeName(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

func decodeName(token string) (string, error) {
	name, err := base64.RawURLEncoding.DecodeString(token)
	return string(name), err
}

// prepare creates the streams and the record of this start, or finds both.
func prepare(ctx context.Context, nc *nats.Conn, opts Options) (birth, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return birth{}, fmt.Errorf("open jetstream: %w", err)
	}
	var b birth
	for _, bucket := range []string{sessionBucket, seatBucket, sharedBucket} {
		last, err := create(ctx, js, bucket, opts.Replicas)
		if err != nil {
			return birth{}, err
		}
		switch bucket {
		case sessionBucket:
			b.Sessions = last
		case seatBucket:
			b.Seats = last
		}
	}
	return register(ctx, js, b, opts)
}

// versionsMax is never reached: each write takes the versions before it away (see set). It is no 1, since what such a
// limit takes away leaves no trace in the files: a bus that was killed, and reads them anew, would find the version that
// stood before one which has expired or was deleted, and bring back sessions that were spent.
const versionsMax = 8

// create makes a bucket that keeps one version a key, and no trace of what is deleted or expired.
func create(ctx context.Context, js jetstream.JetStream, bucket string, replicas int) (last uint64, err error) {
	cfg := jetstream.StreamConfig{
		Name:              streamOf(bucket),
		Subjects:          []string{subjectOf(bucket, ">")},
		MaxMsgsPerSubject: versionsMax,
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		Replicas:          replicas,
		AllowDirect:       true,
		AllowMsgTTL:       true,
		AllowRollup:       true,
		NoAck:             false,
	}
	if bucket == sharedBucket {
		cfg.RePublish = &jetstream.RePublish{Source: subjectOf(bucket, ">"), Destination: changesPrefix + ">", HeadersOnly: true}
	}
	for {
		s, err := js.CreateOrUpdateStream(ctx, cfg)
		if err == nil {
			return s.CachedInfo().State.LastSeq, nil
		}
		if again := pause(ctx); again != nil {
			return 0, fmt.Errorf("create stream %s: %w", cfg.Name, err)
		}
	}
}

// pause waits a moment before another attempt at what the bus may not be ready for; an error means that time is over.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

func epochKey(epoch int64) string { return "epoch." + strconv.FormatInt(epoch, 10) }

// register records this start of the server. The first worker's record counts: whoever opens later wrote nothing
// before it, so what the streams held then was left by earlier starts.
func register(ctx context.Context, js jetstream.JetStream, b birth, opts Options) (birth, error) {
	text, err := json.Marshal(b)
	if err != nil {
		return birth{}, fmt.Errorf("encode start: %w", err)
	}
	subject := subjectOf(sharedBucket, epochKey(opts.Epoch))
	for {
		_, err := js.Publish(ctx, subject, text, jetstream.WithExpectLastSequencePerSubject(0), jetstream.WithMsgTTL(4*opts.SessionTTL))
		var refused *jetstream.APIError
		if err == nil {
			return b, nil
		}
		if errors.As(err, &refused) && (refused.ErrorCode == wrongLastSequence || refused.ErrorCode == wrongLastSequenceConstant) {
			return registered(ctx, js, subject)
		}
		if again := pause(ctx); again != nil {
			return birth{}, fmt.Errorf("record start: %w", err)
		}
	}
}

func registered(ctx context.Context, js jetstream.JetStream, subject string) (b birth, err error) {
	s, err := js.Stream(ctx, streamOf(sharedBucket))
	if err != nil {
		return b, fmt.Errorf("open stream: %w", err)
	}
	m, err := s.GetLastMsgForSubject(ctx, subject)
	if err != nil {
		return b, fmt.Errorf("read start: %w", err)
	}
	if err := json.Unmarshal(m.Data, &b); err != nil {
		return b, fmt.Errorf("decode start: %w", err)
	}
	return b, nil
}
