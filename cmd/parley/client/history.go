package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/show"
)

// messageRow is a message of a history.
type messageRow struct {
	Seq     uint64          `json:"seq"`
	Message json.RawMessage `json:"message"`
}

var messageColumns = []show.Column[messageRow]{
	show.As("SEQ", func(m *messageRow, _ time.Time) string { return strconv.FormatUint(m.Seq, 10) }),
	show.As("MESSAGE", func(m *messageRow, _ time.Time) string { return show.Printable(string(m.Message)) }),
}

const (
	historyRows  = 100 // of one answer
	historyUsual = 20
)

func (l Local) history() *cobra.Command {
	r := remote{local: l}
	limit, since, epoch := 0, uint64(0), ""
	cmd := &cobra.Command{
		Use:   "history ROOM",
		Short: "Show the messages that a room keeps",
		Long: "Show the messages that a room keeps: the newest ones or, with --since and --epoch, those with higher numbers. Both stand in\n" +
			"each message. If some of these are not kept any more, the command says which, and ends with 1.",
		Example: "  parley history chat:1 --limit 100\n" +
			"  parley history chat:1 --since 41 --epoch tQ0WYIvbPzyD --json",
		Args: takesOne("room"),
		RunE: r.with(func(cmd *cobra.Command, at *place, args []string) error {
			given := cmd.Flags().Changed("since")
			switch {
			case given != (epoch != ""):
				return Error{Usage, errors.New("give both --since and --epoch, or neither: a number counts within its epoch")}
			case !given && !cmd.Flags().Changed("limit"):
				limit = historyUsual
			}
			if err := checkLimit(limit); err != nil {
				return err
			}
			h := &reading{at: at, room: args[0], left: limit, all: limit == 0, exact: given}
			if given {
				h.since, h.epoch = since, epoch
			} else if err := h.begin(cmd.Context()); err != nil {
				return err
			}
			return show.List(cmd.OutOrStdout(), r.asJSON, h.pages(cmd.Context()), messageColumns)
		}),
	}
	r.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 0, "show at most this many messages; 0 means all; by default the newest "+strconv.Itoa(historyUsual)+", and with --since all")
	cmd.Flags().Uint64Var(&since, "since", 0, "show the messages with numbers above this one")
	cmd.Flags().StringVar(&epoch, "epoch", "", "the number of --since belongs to this epoch")
	return cmd
}

// reading is a history that is read page by page.
//
// Owner: the command.
type reading struct {
	at    *place
	room  string
	since uint64
	epoch string
	left  int
	all   bool // there is no limit
	exact bool // the operator named the number: what is missing behind it is an error
}

// historyPage is an answer of the API.
//
// Owner: immutable.
type historyPage struct {
	Epoch    string            `json:"epoch"`
	Low      uint64            `json:"low"`
	Top      uint64            `json:"top"`
	Messages []json.RawMessage `json:"messages"`
	More     bool              `json:"more"`
	Gap      bool              `json:"gap"`
	Missing  struct {
		From uint64 `json:"from"`
		To   uint64 `json:"to"`
	} `json:"missing"`
}

func (h *reading) ask(ctx context.Context, query url.Values) (p historyPage, err error) {
	query.Set("room", h.room)
	body, err := h.at.get(ctx, "/v1/history", query)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return p, h.at.stranger("its answer is malformed: %v", err)
	}
	return p, nil
}

// begin finds the number behind which the newest messages are.
func (h *reading) begin(ctx context.Context) error {
	p, err := h.ask(ctx, url.Values{"limit": {"1"}})
	if err != nil {
		return err
	}
	h.epoch, h.since = p.Epoch, p.Low-1
	if kept := p.Top - h.since; !h.all && kept > uint64(h.left) {
		h.since = p.Top - uint64(h.left)
	}
	return nil
}

// pages reads the messages behind the number. The last error says what is missing.
func (h *reading) pages(ctx context.Context) iter.Seq2[[]json.RawMessage, error] {
	return func(yield func([]json.RawMessage, error) bool) {
		var gap error
		for more := true; more && (h.all || h.left > 0); {
			n := historyRows
			if !h.all {
				n = min(n, h.left)
			}
			p, err := h.ask(ctx, url.Values{"since_seq": {strconv.FormatUint(h.since, 10)}, "epoch": {h.epoch}, "limit": {strconv.Itoa(n)}})
			switch {
			case err != nil:
			case p.Gap && p.Missing.From == 0:
				err = Error{Failed, fmt.Errorf("the numbers of the room began anew in the epoch %s, or it has none above %d yet: it is not known what is missing", p.Epoch, h.since)}
			case p.Gap && gap == nil && h.exact:
				gap = Error{Failed, fmt.Errorf("the list is not complete: the room does not keep the messages %d to %d any more", p.Missing.From, p.Missing.To)}
			}
			if !yield(p.Messages, err) || err != nil {
				return
			}
			h.left -= len(p.Messages)
			h.since, more = max(h.since, p.Low-1)+uint64(len(p.Messages)), p.More && len(p.Messages) > 0
		}
		if gap != nil {
			yield(nil, gap)
		}
	}
}
