package ledger

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/bytedance/sonic"
	"github.com/nats-io/nats.go"
)

// mark names the write that made a version of a record: sixteen bytes that no other write has.
type mark [16]byte

func (m mark) String() string { return hex.EncodeToString(m[:]) }

// mark makes a new mark.
func (l *Ledger) mark() (m mark) {
	l.marks++
	binary.BigEndian.PutUint64(m[:8], l.writer)
	binary.BigEndian.PutUint64(m[8:], l.marks)
	return m
}

// set is a compare-and-set on its way. It is sent, unchanged, until the bus has decided it. After a conflict the caller
// reads the record: if it has the mark of this set, an earlier attempt had succeeded.
//
// Owner: the ledger's goroutine.
type set struct {
	bucket  string
	key     string
	expect  uint64 // the revision that must be the last one; 0 for none
	payload []byte // nil deletes
	ttl     time.Duration
	pile    bool                             // leave the earlier versions: see bucket.config
	done    func(revision uint64, err error) // errConflict, or the bus's error
}

// conflict is the outcome of a set that came too late.
type conflict struct{}

func (conflict) Error() string { return "another worker wrote the record" }

var errConflict error = conflict{}

var errLater = errors.New("the bus is not ready")

// A deleted record leaves a marker, which expires without a trace. The marker of a shared record must live until all
// workers have read it: they read at least once a second, and read all records anew after an absence.
const (
	markerTime       = time.Second
	sharedMarkerTime = 10 * time.Second
)

// set sends s until the bus has answered: callers that must not wait that long have a promise.
func (l *Ledger) set(s *set) {
	l.attempt(s, s.message())
}

// message is the request that the bus decides.
func (s *set) message() *nats.Msg {
	m := &nats.Msg{Subject: subjectOf(s.bucket, s.key), Data: s.payload, Header: make(nats.Header, 4)}
	m.Header["Nats-Expected-Last-Subject-Sequence"] = []string{strconv.FormatUint(s.expect, 10)}
	if !s.pile {
		m.Header["Nats-Rollup"] = []string{"sub"}
	}
	ttl := s.ttl
	if s.payload == nil {
		m.Header["KV-Operation"] = []string{"PURGE"}
		if ttl = markerTime; s.bucket == sharedBucket {
			ttl = sharedMarkerTime
		}
	}
	if ttl > 0 {
		m.Header["Nats-TTL"] = []string{strconv.FormatInt(int64((ttl+time.Second-1)/time.Second), 10)}
	}
	return m
}

// attempt sends m. If an earlier attempt had succeeded just before the bus was killed, the earlier versions may not have
// been removed: then they are purged.
func (l *Ledger) attempt(s *set, m *nats.Msg) {
	var c *call
	c = l.wire.request(m, func(answer *nats.Msg) {
		revision, err := acknowledged(answer.Data)
		if err == errLater {
			l.wire.rest()
			l.wire.repeat(c)
			return
		}
		if err == errConflict && c.tries > 1 {
			l.purge(s.bucket, fmt.Sprintf(`{"filter":%q,"keep":1}`, subjectOf(s.bucket, s.key)))
		}
		s.done(revision, err)
	})
}

// purge deletes the records that a request of JetStream's API names.
func (l *Ledger) purge(bucket, request string) {
	l.wire.request(&nats.Msg{Subject: "$JS.API.STREAM.PURGE." + streamOf(bucket), Data: []byte(request)}, func(answer *nats.Msg) {
		if strings.Contains(string(answer.Data), `"error"`) {
			l.fault(fmt.Errorf("purge %s: %s: %s", streamOf(bucket), request, answer.Data))
		}
	})
}

// Codes of JetStream's errors.
const (
	wrongLastSequence         = 10071
	wrongLastSequenceConstant = 10164
	tooManyRequests           = 429
	notAvailable              = 503
	notFound                  = 404
	nameTaken                 = 10058
)

// acknowledged reads the bus's answer to a set: a revision, errConflict, or errLater if the set must be sent again.
func acknowledged(answer []byte) (uint64, error) {
	var ack struct {
		Seq   uint64 `json:"seq"`
		Error *struct {
			Code    int    `json:"code"`
			ErrCode int    `json:"err_code"`
			Text    string `json:"description"`
		} `json:"error"`
	}
	if err := sonic.Unmarshal(answer, &ack); err != nil {
		return 0, fmt.Errorf("decode acknowledgement: %w", err)
	}
	switch {
	case ack.Error == nil && ack.Seq > 0:
		return ack.Seq, nil
	case ack.Error == nil:
		return 0, fmt.Errorf("decode acknowledgement: no sequence in %q", answer)
	case ack.Error.ErrCode == wrongLastSequence || ack.Error.ErrCode == wrongLastSequenceConstant:
		return 0, errConflict
	case ack.Error.Code == tooManyRequests || ack.Error.Code == notAvailable:
		return 0, errLater
	}
	return 0, fmt.Errorf("write record: %s (%d)", ack.Error.Text, ack.Error.ErrCode)
}

// found is the result of a read: payload is nil if there is no record. The revision of a deleted record is that of its
// marker, which a set must expect.
type found struct {
	revision uint64
	payload  []byte
}

// get reads a record. It repeats the request until the bus has answered.
func (l *Ledger) get(bucket, key string, done func(found)) {
	m := &nats.Msg{Subject: "$JS.API.DIRECT.GET." + streamOf(bucket) + "." + subjectOf(bucket, key)}
	l.read(m, done)
}

func (l *Ledger) read(m *nats.Msg, done func(found)) {
	var c *call
	c = l.wire.request(m, func(answer *nats.Msg) {
		switch status := answer.Header.Get("Status"); status {
		case "":
			done(stored(answer))
		case "404":
			done(found{})
		default:
			l.fault(fmt.Errorf("read record: bus answers %s %s", status, answer.Header.Get("Description")))
			l.wire.rest()
			l.wire.repeat(c)
		}
	})
}

// stored reads one record out of an answer to a direct get.
func stored(answer *nats.Msg) found {
	f := found{payload: answer.Data}
	f.revision, _ = strconv.ParseUint(answer.Header.Get("Nats-Sequence"), 10, 64)
	if answer.Header.Get("KV-Operation") != "" {
		f.payload = nil
	}
	return f
}
