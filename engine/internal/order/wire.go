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
const Version = 2

// ErrWire is the error for bytes that are damaged, or of a newer version.
var ErrWire = errors.New("a message about the order is damaged, or of a newer version")

// Items of a batch. The first three need no welcome.
const (
	itemHello  byte = iota + 1 // number of the next publish, place in the log, burials: the follower wants to be welcomed
	itemLog                    // entries of an earlier term
	itemState                  // what the follower has of an earlier term: see [state]
	itemSubmit                 // number, message
	itemVoid                   // number: of a publish that was given up
	itemAsk                    // question, room, options: the follower wants to be attached
	itemRead                   // question, room, epoch, first, last
	itemLeave                  // number, room, newest question: the follower needs it no longer
	itemEnd                    // number, room: it is deleted
	itemKept                   // question, room, epoch, messages
	itemKeys                   // question, room, epoch: the follower wants to know the idempotency keys
)

// Entries of the stream.
const (
	entryReady    byte = iota + 1 // a new sequencer, which numbers at once
	entryWelcome                  // follower, number of its next publish, burials
	entryBuried                   // follower that has died; it said nothing behind this
	entryAttached                 // follower, question, room, epoch, low, top, and whether there are idempotency keys
	entryOrdered                  // follower, number, ticket, room, epoch, seq, publisher, exceptions, users, key, frame
	entryAlready                  // follower, number, outcome, seq, epoch: nothing was published for the number
	entryAgain                    // follower, number that is missing
	entryEnded                    // room
	entryRebuild                  // a new sequencer, which asks the followers for what they have
	entryLog                      // follower, place: it is to send the entries from there on
	entryLate                     // number, entry of an earlier term: some followers lack it
	entryState                    // place that all are at: the followers are to say what they have
	entryKept                     // follower, question: it is to send messages
)

// Answers to one follower.
const (
	pieceMessages byte = iota + 1 // question, room, epoch, low, messages
	pieceKeys                     // question, room, epoch, idempotency keys
)

// Outcomes of a publish without a message of its own.
const (
	outcomeUnknown   byte = iota // the number was taken before, or was given up
	outcomeDuplicate             // of an earlier message, whose position is told
	outcomeRefused               // the room has no history
)

// logPlace is a place in the log: the term, and the number of an entry of its stream. The zero place is that of a follower that was
// never welcome.
type logPlace struct{ term, n uint64 }

func (p logPlace) append(w *fleet.Writer) { w.Number(p.term).Number(p.n) }

func readPlace(r *fleet.Reader) logPlace { return logPlace{r.Number(), r.Number()} }

func appendWorkers(w *fleet.Writer, list []ident.Worker) {
	w.Number(uint64(len(list)))
	for _, x := range list {
		w.Number(uint64(x.Instance()))
	}
}

func readWorkers(r *fleet.Reader) (list []ident.Worker) {
	for range min(r.Number(), uint64(len(r.Rest))) {
		list = append(list, readWorker(r))
	}
	return list
}

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
	Ticket   uint64                // each worker is to tell, with it, for how many connections the message was queued: see [Floor]; 0: none
}

func (m *Message) append(w *fleet.Writer) {
	w.Text(m.Room).Bytes(m.Body)
	appendID(w, m.By)
	w.IDs(m.Out)
	appendTexts(w, m.OutUsers)
	w.Text(m.Key).Text(m.Scope).Text(m.Once)
	appendOptions(w, m.Options)
	w.Number(m.Ticket)
}

func readMessage(r *fleet.Reader) (m Message) {
	m.Room, m.Body, m.By = string(r.Bytes()), r.Bytes(), readID(r)
	m.Out = idsOf(r.IDs())
	m.OutUsers = readTexts(r)
	m.Key, m.Scope, m.Once = string(r.Bytes()), string(r.Bytes()), string(r.Bytes())
	m.Options = readOptions(r)
	m.Ticket = r.Number()
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
	Key      uint64    // for conflation; 0 for none
	Once     rooms.Key // of the idempotency key; zero for none
	Frame    []byte
	Own      *Submission // of this follower; nil where another one published it, or nobody waits for it
	From     ident.Worker
	Ticket   uint64 // of [Message]
}

func (m *Ordered) append(w *fleet.Writer) {
	w.Text(m.Epoch).Number(m.Seq)
	appendID(w, m.By)
	w.IDs(m.Out)
	appendTexts(w, m.OutUsers)
	w.Number(m.Key)
	appendKey(w, m.Once)
	w.Bytes(m.Frame)
}

func appendKey(w *fleet.Writer, k rooms.Key) {
	if w.Flag(k != rooms.Key{}); k != (rooms.Key{}) {
		w.Number(k[0]).Number(k[1])
	}
}

func readKey(r *fleet.Reader) (k rooms.Key) {
	if r.Flag() {
		k = rooms.Key{r.Number(), r.Number()}
	}
	return k
}

func (m *Ordered) read(r *fleet.Reader) {
	m.Epoch, m.Seq, m.By = string(r.Bytes()), r.Number(), readID(r)
	m.Out = idsOf(r.IDs())
	m.OutUsers = readTexts(r)
	m.Key, m.Once, m.Frame = r.Number(), readKey(r), r.Bytes()
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

// KeptOf are messages of a history.
func KeptOf(e *rooms.Entries, now int64) (list []Kept) {
	for i := range e.List {
		x := &e.List[i]
		list = append(list, Kept{Seq: e.First + uint64(i), By: x.By(), Out: x.Out(), Key: x.Key(), Age: time.Duration(max(now-x.At(), 0)), Frame: x.Frame()})
	}
	return list
}

// About is the message as a history takes it.
func (m *Kept) About(now int64) rooms.NumberedMessage {
	return rooms.NumberedMessage{Now: now - int64(m.Age), By: m.By, Out: m.Out, ConflateKey: m.Key}
}

// FillHistory is [rooms.History.Fill]; list has one message at least, and its frames are kept.
func FillHistory(h *rooms.History, epoch string, list []Kept, now int64) {
	about, frames := make([]rooms.NumberedMessage, len(list)), make([][]byte, len(list))
	for i := range list {
		about[i], frames[i] = list[i].About(now), list[i].Frame
	}
	h.Fill(epoch, list[0].Seq, about, frames)
}

func readKept(r *fleet.Reader) (list []Kept) {
	for range min(r.Number(), uint64(len(r.Rest))) {
		var m Kept
		m.read(r)
		list = append(list, m)
	}
	return list
}

func appendKept(w *fleet.Writer, list []Kept) {
	w.Number(uint64(len(list)))
	for i := range list {
		list[i].append(w)
	}
}

func (m *Kept) read(r *fleet.Reader) {
	m.Seq, m.By = r.Number(), r.Number()
	for range min(r.Number(), uint64(len(r.Rest))) {
		m.Out = append(m.Out, r.Number())
	}
	m.Key, m.Age, m.Frame = r.Number(), time.Duration(r.Number()), r.Bytes()
}

// state is a part of what a follower has: the whole is parts 0 to Parts-1.
//
// Owner: the caller.
type state struct {
	at          logPlace
	next        uint64 // the number of the follower's next publish
	part, parts uint64
	rooms       []roomState
}

// roomState is a room as a follower has it.
//
// Owner: the caller.
type roomState struct {
	room    string
	at      rooms.Position
	low     uint64
	options *rooms.HistoryOptions // its own bounds
	keys    []rooms.KeyedNumber
}

func (x *roomState) append(w *fleet.Writer) {
	w.Text(x.room).Text(x.at.Epoch).Number(x.at.Seq).Number(x.low)
	appendOptions(w, x.options)
	appendKeys(w, x.keys)
}

func appendKeys(w *fleet.Writer, keys []rooms.KeyedNumber) {
	w.Number(uint64(len(keys)))
	for _, k := range keys {
		w.Number(k.Key[0]).Number(k.Key[1]).Number(k.Number).Number(uint64(k.Age))
	}
}

func readKeys(r *fleet.Reader) (keys []rooms.KeyedNumber) {
	for range min(r.Number(), uint64(len(r.Rest))) {
		keys = append(keys, rooms.KeyedNumber{Key: rooms.Key{r.Number(), r.Number()}, Number: r.Number(), Age: time.Duration(r.Number())})
	}
	return keys
}

func (x *roomState) read(r *fleet.Reader) {
	x.room, x.at.Epoch, x.at.Seq, x.low = string(r.Bytes()), string(r.Bytes()), r.Number(), r.Number()
	x.options, x.keys = readOptions(r), readKeys(r)
}

// head reads the version and the kind of a message.
func head(r *fleet.Reader) bool {
	if len(r.Rest) == 0 || r.Rest[0] != Version {
		return false
	}
	r.Rest = r.Rest[1:]
	return true
}
