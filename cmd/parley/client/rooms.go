package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/show"
)

// rooms lists rooms. Without a verb it does what ls does.
func (l Local) rooms() *cobra.Command {
	cmd := l.roomsList("rooms", l.KnownVerb)
	cmd.AddCommand(l.roomsList("ls", l.NoArguments), l.roomsShow(), l.roomsCreate(), l.roomsDelete())
	return cmd
}

// roomRow is a room, as far as a person reads of it.
//
// Owner: immutable.
type roomRow struct {
	Room       string          `json:"room"`
	Members    int             `json:"members"`
	MaxMembers int             `json:"max_members"`
	CreatedAt  string          `json:"created_at"`
	Metadata   json.RawMessage `json:"metadata"`
	History    *roomHistory    `json:"history"`
}

// roomHistory is what a room with history keeps.
type roomHistory struct {
	Seq      uint64 `json:"seq"`
	Epoch    string `json:"epoch"`
	Messages int    `json:"messages"`
}

func (h *roomHistory) String() string {
	if h == nil {
		return "-"
	}
	return fmt.Sprintf("%s kept, up to the number %d of the epoch %s", show.Things(h.Messages, "message"), h.Seq, show.Printable(h.Epoch))
}

var roomColumns = []show.Column[roomRow]{
	show.As("ROOM", func(r *roomRow, _ time.Time) string { return show.Name(r.Room) }),
	show.As("MEMBERS", func(r *roomRow, _ time.Time) string { return strconv.Itoa(r.Members) }),
	show.As("LIMIT", func(r *roomRow, _ time.Time) string { return show.OrDash(r.MaxMembers, strconv.Itoa(r.MaxMembers)) }),
	show.As("AGE", func(r *roomRow, now time.Time) string { return show.Ago(r.CreatedAt, now) }),
}

// roomFacts are the lines of one room.
var roomFacts = append(slices.Clone(roomColumns),
	show.As("METADATA", func(r *roomRow, _ time.Time) string {
		return show.OrDash(len(r.Metadata), show.Printable(string(r.Metadata)))
	}),
	show.As("HISTORY", func(r *roomRow, _ time.Time) string { return r.History.String() }))

func (l Local) roomsList(use string, args cobra.PositionalArgs) *cobra.Command {
	r := remote{local: l}
	match, limit := "", 0
	cmd := &cobra.Command{
		Use:     use,
		Short:   "List rooms",
		Example: "  parley rooms ls --match 'chat:**'",
		Args:    args,
		RunE: r.with(func(cmd *cobra.Command, at *place, _ []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			return show.List(cmd.OutOrStdout(), r.asJSON, at.pages(cmd.Context(), "/v1/rooms", filled(map[string]string{"match": match}), limit), roomColumns)
		}),
	}
	r.flags(cmd)
	cmd.Flags().StringVar(&match, "match", "", "only rooms that match this pattern: * is any characters but ':', ** any characters")
	cmd.Flags().IntVar(&limit, "limit", 0, "list at most this many; 0 means all")
	return cmd
}

func (l Local) roomsShow() *cobra.Command {
	r := remote{local: l}
	cmd := &cobra.Command{
		Use:   "show ROOM",
		Short: "Describe a room (parley conns ls --room ROOM lists its members)",
		Args:  takesOne("room"),
		RunE: r.with(func(cmd *cobra.Command, at *place, args []string) error {
			body, err := at.get(cmd.Context(), "/v1/room", url.Values{"room": args})
			if err != nil {
				return err
			}
			var absent missing
			if err := json.Unmarshal(body, &absent); err != nil {
				return at.stranger("its answer is malformed: %v", err)
			}
			if err := show.One(cmd.OutOrStdout(), r.asJSON, body, roomFacts); err != nil {
				return err
			}
			return absent.err()
		}),
	}
	r.flags(cmd)
	return cmd
}

func (l Local) roomsCreate() *cobra.Command {
	r := remote{local: l}
	most, metadata := 0, ""
	cmd := &cobra.Command{
		Use:     "create ROOM",
		Short:   "Make a room that stays when it is empty",
		Example: "  parley rooms create game:7 --max-members 50",
		Args:    takesOne("room"),
		RunE: r.with(func(cmd *cobra.Command, at *place, args []string) error {
			body := object(nil).text("room", args[0])
			if cmd.Flags().Changed("max-members") {
				body = body.number("max_members", int64(most))
			}
			if metadata != "" {
				raw, err := jsonOf(metadata)
				if err != nil {
					return Error{Usage, fmt.Errorf("--metadata: %w", err)}
				}
				body = body.json("metadata", raw)
			}
			return r.carryOut(cmd, at, action{"/v1/rooms/create", body.end(), func(*outcome) string { return "created " + show.Name(args[0]) }})
		}),
	}
	r.flags(cmd)
	cmd.Flags().IntVar(&most, "max-members", 0, "the room takes at most this many members; by default max_connections_per_room")
	cmd.Flags().StringVar(&metadata, "metadata", "", "the server keeps this JSON with the room")
	return cmd
}

func (l Local) roomsDelete() *cobra.Command {
	r := remote{local: l}
	cmd := &cobra.Command{
		Use:   "delete ROOM",
		Short: "Take all members out of a room, and end it",
		Args:  takesOne("room"),
		RunE: r.with(func(cmd *cobra.Command, at *place, args []string) error {
			return r.carryOut(cmd, at, action{"/v1/rooms/delete", object(nil).text("room", args[0]).end(), func(o *outcome) string {
				return "deleted " + show.Name(args[0]) + ": " + show.Things(o.Left, "member") + " left"
			}})
		}),
	}
	r.flags(cmd)
	return cmd
}

// userRow is a user.
type userRow struct {
	User        string `json:"user"`
	Connections int    `json:"connections"`
}

var userColumns = []show.Column[userRow]{
	show.As("USER", func(u *userRow, _ time.Time) string { return show.Name(u.User) }),
	show.As("CONNECTIONS", func(u *userRow, _ time.Time) string { return strconv.Itoa(u.Connections) }),
}

const usersNamedMax = 200 // in one request

func (l Local) users() *cobra.Command {
	r := remote{local: l}
	limit := 0
	cmd := &cobra.Command{
		Use:   "users [USER...]",
		Short: "List the users that have connections, or those that are named, with the number of their connections",
		RunE: r.with(func(cmd *cobra.Command, at *place, args []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			pages := at.pages(cmd.Context(), "/v1/users", url.Values{}, limit)
			switch {
			case len(args) > 0 && limit > 0:
				return Error{Usage, errors.New("--limit: the command shows all users that you name; leave --limit out")}
			case len(args) > 0:
				pages = at.namedUsers(cmd.Context(), args)
			}
			return show.List(cmd.OutOrStdout(), r.asJSON, pages, userColumns)
		}),
	}
	r.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 0, "list at most this many; 0 means all")
	return cmd
}
