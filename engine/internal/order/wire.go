package order

import (
	"errors"
	"time"

	"github.com/parleyd/parley/engine/internal/fleet"
	"github.com/parleyd/parley/protocol/ident"
	"github.com/parleyd/parley/rooms"
)

// Three kinds of messages. A follower sends batches of items to the sequencer. The sequencer's stream has entries, each with
// the term and a number. An answer to a read goes from the sequencer to one follower.

// Version is the first byte of a batch, an entry and an answer. A reader refuses a newer one: the processes of one server that
// order messages run one program.
const Version = 1

// ErrWire is the error for bytes that are damaged, or of a newer version.
var ErrWire = errors.New("a message about the order is damaged, or of a newer version")

// Items of a batch.
const (
	itemHello  byte = iota + 1 // number of the next publish: the follower wants to be welcomed
	itemSubmit                 // number, message
	itemVoid                   // number: of a publish that was given up
	itemAsk                    // question, room, options: the follower wants to be attached
	itemRead                   // question, room, epoch, first, last
	itemLeave                  // room: the follower needs it no longer
	itemEnd                    // room: it is deleted
)

// Entries of the stream.
const (
	entryReady    byte = iota + 1 // a new sequencer
	entryWelcome                  // follower, number of its next publish
	entryBuried                   // follower that has died; it said nothing behind this
	entryAttached                 // follower, question, room, epoch, low, top
	entryOrdered                  // follower, number, room, epoch, seq, publisher, exceptions, users, key, frame
	entryAlready                  // follower, number, outcome, seq, epoch: nothing was published for the number
	entryAgain                    // follower, number that is missing
	entryEnded                    // room
)

// Outcomes of a publish without a message of its own.
const (
	outcomeUnknown   byte = iota // the number was taken before, or was given up
	outcomeDuplicate             // of an earlier message, whose position is told
	outcomeRefused               // the room has no history
)

// Message is what a publisher wants to be published.
//
// Owner: the caller.
type Message struct {
	Room     string
	Body     []byte                // JSON, without its last brace
	By       ident.ID              // the connection that publishes; zero for none
	Out      []ident.ID            // connections that it is not for
	OutUsers []string              // users that it is not for
	Key      string                // for conflation; "" for none
	Scope    string                // of the idempotency key
	Once     string                // the idempotency key; "" for none
	Options  *rooms.HistoryOptions // of the room; nil: as the sequencer's settings say
}

func (m *Message) append(w *fleet.Writer) {
	w.Text(m.Room).Bytes(m.Body)
	appendID(w, m.By)
	w.IDs(m.Out)
	appendTexts(w, m.OutUsers)
	w.Text(m.Key).Text(m.Scope).Text(m.Once)
	appendOptions(w, m.Options)
}

func readMessage(r *fleet.Reader) (m Message) {
	m.Room, m.Body, m.By = string(r.Bytes()), r.Bytes(), readID(r)
	m.Out = idsOf(r.IDs())
	m.OutUsers = readTexts(r)
	m.Key, m.Scope, m.Once = string(r.Bytes()), string(r.Bytes()), string(r.Bytes())
	m.Options = readOptions(r)
	return m
}

func idsOf(list fleet.IDs) (ids []ident.ID) {
	for i := range list.Len() {
		ids = append(ids, list.At(i))
	}
	return ids
}

func appendID(w *fleet.Writer, id ident.ID) {
	if id == (ident.ID{}) {
		w.Number(0)
		return
	}
	w.Number(1).Number(uint64(id.Worker.Instance())).Place(id.Place)
}

func readID(r *fleet.Reader) (id ident.ID) {
	if !r.Flag() {
		return id
	}
	return ident.ID{Worker: readWorker(r), Place: r.Place()}
}

func readWorker(r *fleet.Reader) ident.Worker { return ident.On(0, uint16(r.Number())) }

func appendTexts(w *fleet.Writer, list []string) {
	w.Number(uint64(len(list)))
	for _, s := range list {
		w.Text(s)
	}
}

func readTexts(r *fleet.Reader) (list []string) {
	for range min(r.Number(), uint64(len(r.Rest))) {
		list = append(list, string(r.Bytes()))
	}
	return list
}

func appendOptions(w *fleet.Writer, o *rooms.HistoryOptions) {
	if w.Flag(o != nil); o != nil {
		w.Number(uint64(o.Messages)).Number(uint64(o.Bytes)).Number(uint64(o.Age)).Number(uint64(o.Slow))
	}
}

func readOptions(r *fleet.Reader) *rooms.HistoryOptions {
	if !r.Flag() {
		return nil
	}
	o := &rooms.HistoryOptions{Messages: int(r.Number()), Bytes: int(r.Number()), Age: time.Duration(r.Number()), Slow: rooms.SlowPolicy(r.Byte())}
	if o.Messages <= 0 || o.Bytes <= 0 || o.Age <= 0 || o.Slow > rooms.SlowConflate {
		r.Bad = true
	}
	return o
}

// Ordered is a message that has its number. Its slices are borrowed from the bytes that it was read from.
//
// Owner: the caller.
type Ordered struct {
	Room     string
	Epoch    string
	Seq      uint64
	By       ident.ID
	Out      []ident.ID
	OutUsers []string
	Key      uint64 // for conflation; 0 for none
	Frame    []byte
	Own      *Submission // of this follower; nil where another one published it, or nobody waits for it
}

func (m *Ordered) append(w *fleet.Writer) {
	w.Text(m.Epoch).Number(m.Seq)
	appendID(w, m.By)
	w.IDs(m.Out)
	appendTexts(w, m.OutUsers)
	w.Number(m.Key).Bytes(m.Frame)
}

func (m *Ordered) read(r *fleet.Reader) {
	m.Epoch, m.Seq, m.By = string(r.Bytes()), r.Number(), readID(r)
	m.Out = idsOf(r.IDs())
	m.OutUsers = readTexts(r)
	m.Key, m.Frame = r.Number(), r.Bytes()
}

// Kept is a message of the sequencer's history, as a follower reads it. Its frame is borrowed.
//
// Owner: the caller.
type Kept struct {
	Seq   uint64
	By    uint64   // the publisher, by [rooms.Who]; 0 for none
	Out   []uint64 // connections that it is not for, by [rooms.Who]
	Key   uint64   // for conflation; 0 for none
	Age   time.Duration
	Frame []byte
}

func (m *Kept) append(w *fleet.Writer) {
	w.Number(m.Seq).Number(m.By).Number(uint64(len(m.Out)))
	for _, who := range m.Out {
		w.Number(who)
	}
	w.Number(m.Key).Number(uint64(m.Age)).Bytes(m.Frame)
}

func (m *Kept) read(r *fleet.Reader) {
	m.Seq, m.By = r.Number(), r.Number()
	for range min(r.Number(), uint64(len(r.Rest))) {
		m.Out = append(m.Out, r.Number())
	}
	m.Key, m.Age, m.Frame = r.Number(), time.Duration(r.Number()), r.Bytes()
}

// head reads the version and the kind of a message.
func head(r *fleet.Reader) bool {
	if len(r.Rest) == 0 || r.Rest[0] != Version {
		return false
	}
	r.Rest = r.Rest[1:]
	return true
}
