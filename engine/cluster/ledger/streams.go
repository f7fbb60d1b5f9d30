package ledger

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The buckets. They have the layout of JetStream's key-value buckets, so that its tools can read them.
const (
	sessionBucket = "sessions"
	seatBucket    = "seats"
	sharedBucket  = "shared" // followed by every worker: created rooms, deaths, starts
)

// changesPrefix is where the bus republishes the records of sharedBucket.
const changesPrefix = "ledger.changed."

func subjectOf(bucket, key string) string { return "$KV." + bucket + "." + key }

func streamOf(bucket string) string { return "KV_" + bucket }

// encodeName makes any name a token of a subject.
func encodeName(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

func decodeName(token string) (string, error) {
	name, err := base64.RawURLEncoding.DecodeString(token)
	return string(name), err
}

// config is the configuration of a bucket's stream, which keeps no trace of deleted or expired records. Earlier versions of
// a record are not removed by a limit of one message a subject: JetStream does not write such removals to its files. If the
// latest version expires, and the bus is killed, its recovery would take an earlier version in the files for the latest: a
// used token would be valid again (nats-server issue 8505). Removals by a rollup are written. So every set is a rollup,
// except those whose version does not expire: a few of them may pile up, and the next rollup removes them.
//
// firstSeq is the first sequence of a new stream. It is above all sequences of earlier streams, so that no revision of a
// lost stream is valid in its successor, which refuses sets that were meant for the lost one.
func (b *bucket) config(firstSeq uint64) jetstream.StreamConfig {
	cfg := jetstream.StreamConfig{
		Name:              streamOf(b.name),
		Subjects:          []string{subjectOf(b.name, ">")},
		MaxMsgsPerSubject: -1,
		MaxMsgs:           -1,
		MaxBytes:          -1,
		MaxMsgSize:        -1,
		MaxConsumers:      -1,
		Discard:           jetstream.DiscardNew,
		Storage:           jetstream.FileStorage,
		Replicas:          b.l.opts.Replicas,
		AllowDirect:       true,
		AllowMsgTTL:       true,
		AllowRollup:       true,
		FirstSeq:          firstSeq,
	}
	if b.name == sharedBucket {
		cfg.RePublish = &jetstream.RePublish{Source: subjectOf(b.name, ">"), Destination: changesPrefix + ">", HeadersOnly: true}
	}
	return cfg
}

// foreign reports whether a stream has settings that an update cannot change. This server did not make it, and may delete
// it: the account is ours alone, and records are copies of what the workers know.
func foreign(cfg jetstream.StreamConfig) bool {
	return cfg.Storage != jetstream.FileStorage || cfg.Retention != jetstream.LimitsPolicy || cfg.DenyDelete || cfg.DenyPurge ||
		cfg.Sealed || cfg.Mirror != nil || len(cfg.Sources) > 0
}

// verdict is an answer of JetStream's API.
type verdict struct {
	jetstream.StreamInfo
	Error *struct {
		Code    int    `json:"code"`
		ErrCode int    `json:"err_code"`
		Text    string `json:"description"`
	} `json:"error"`
}

// api sends a request about the bucket's stream to JetStream's API. If JetStream is not there, or its answer cannot be
// decoded, the check starts again a little later.
func (b *bucket) api(verb string, body any, done func(*verdict)) {
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body) // cannot fail: a struct of JetStream's client
	}
	b.ask(&nats.Msg{Subject: "$JS.API.STREAM." + verb + "." + streamOf(b.name), Data: text}, func(m *nats.Msg) {
		var v verdict
		switch err := json.Unmarshal(m.Data, &v); {
		case m.Header.Get("Status") != "":
			b.later("the bus has no JetStream at the moment")
		case err != nil:
			b.later(fmt.Sprintf("decode answer of JetStream: %v", err))
		default:
			done(&v)
		}
	})
}

// ask sends a request ahead of all others. done also gets NATS's answer that there is no listener.
func (b *bucket) ask(m *nats.Msg, done func(*nats.Msg)) {
	b.l.wire.enqueue(&call{msg: m, done: done, bare: true})
}

// make creates the stream or updates its settings, then writes its origin. Several workers may do so at once.
func (b *bucket) make() {
	b.api("INFO", nil, func(v *verdict) {
		switch {
		case v.Error == nil:
			b.amend(v)
		case v.Error.Code == notFound:
			b.create()
		default:
			b.refused("look for", v)
		}
	})
}

func (b *bucket) create() {
	b.api("CREATE", b.config(uint64(time.Now().UnixMicro())), func(v *verdict) {
		switch {
		case v.Error == nil:
			b.settle(v.State.LastSeq)
		case v.Error.ErrCode == nameTaken: // another worker came first
			b.make()
		default:
			b.refused("create", v)
		}
	})
}

// amend updates the settings of an existing stream.
func (b *bucket) amend(v *verdict) {
	last, was := v.State.LastSeq, v.Config
	b.api("UPDATE", b.config(was.FirstSeq), func(v *verdict) {
		switch {
		case v.Error == nil:
			b.settle(last)
		case foreign(was):
			b.l.say(fmt.Errorf("stream %s has settings that cannot be changed (%s): it is created again", streamOf(b.name), v.Error.Text))
			b.api("DELETE", nil, func(*verdict) { b.create() })
		default:
			b.refused("update", v)
		}
	})
}

func (b *bucket) refused(verb string, v *verdict) {
	b.later(fmt.Sprintf("%s stream %s: %s (%d)", verb, streamOf(b.name), v.Error.Text, v.Error.ErrCode))
}
