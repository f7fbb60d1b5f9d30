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

// create makes a bucket that keeps no trace of what is deleted or expired. Earlier versions of a record are not left to a
// limit of one message a subject: JetStream does not write down what a limit removes. When the latest version has expired
// too, and the bus is killed, its recovery would find an earlier one in the files and give it out as the latest: a token
// that was used up would be good once more (nats-server issue 8505). What a rollup removes is written down. So every set is
// one, but for those whose version does not expire: a few of them may pile up, and the next rollup removes all.
func create(ctx context.Context, js jetstream.JetStream, bucket string, replicas int) (last uint64, err error) {
	cfg := jetstream.StreamConfig{
		Name:              streamOf(bucket),
		Subjects:          []string{subjectOf(bucket, ">")},
		MaxMsgsPerSubject: -1,
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
