package ledger

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
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

func subjectOf(bucket, key string) string { return "$KV." + bucket + "." + key }

func streamOf(bucket string) string { return "KV_" + bucket }

// encodeName makes any name a token of a subject.
func encodeName(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

func decodeName(token string) (string, error) {
	name, err := base64.RawURLEncoding.DecodeString(token)
	return string(name), err
}

// config is that of a bucket's stream, which keeps no trace of what is deleted or expired. Earlier versions of a record are
// not left to a limit of one message a subject: JetStream does not write down what a limit removes. When the latest version
// has expired too, and the bus is killed, its recovery would find an earlier one in the files and give it out as the latest:
// a token that was used up would be good once more (nats-server issue 8505). What a rollup removes is written down. So every
// set is one, but for those whose version does not expire: a few of them may pile up, and the next rollup removes all.
//
// firstSeq is where a new stream begins to count. Each begins above all that were before it, so that no revision of a stream
// that was lost is one of the stream that follows: what was sent to the lost one is refused by its successor.
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

// foreign reports whether a stream has what an update cannot take away. It was made by somebody else: the account is ours
// alone, and what its streams hold is a copy of what the workers know.
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

// api asks JetStream's API about the bucket's stream. Where JetStream is not there, or its answer makes no sense, the check
// begins anew a little later.
func (b *bucket) api(verb string, body any, done func(*verdict)) {
	var text []byte
	if body != nil {
		text, _ = json.Marshal(body) // a struct of JetStream's client: it can be encoded
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

// ask sends a request ahead of all others. Its answer counts, also the one that nobody listens.
func (b *bucket) ask(m *nats.Msg, done func(*nats.Msg)) {
	b.l.wire.enqueue(&call{msg: m, done: done, bare: true})
}

// make sees to it that the stream is there and is as it must be, and then to its origin. Several workers may do so at once.
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

// amend gives a stream that is there the settings that it must have.
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
