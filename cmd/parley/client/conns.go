package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/show"
)

// conns lists connections. Without a verb it does what ls does.
func (l Local) conns() *cobra.Command {
	cmd := l.connsList("conns", l.KnownVerb)
	cmd.AddCommand(l.connsList("ls", l.NoArguments), l.connsShow(), l.connsKick())
	return cmd
}

// connRow is a connection, as far as a person reads of it.
//
// Owner: immutable.
type connRow struct {
	ID           string          `json:"id"`
	User         string          `json:"user"`
	Address      string          `json:"address"`
	ConnectedAt  string          `json:"connected_at"`
	LastActivity string          `json:"last_activity"`
	Rooms        []string        `json:"rooms"`
	Attributes   json.RawMessage `json:"attributes"`
	Backlog      int64           `json:"backlog_bytes"`
	Received     *int64          `json:"received"`
	Sent         *int64          `json:"sent"`
	Worker       *int64          `json:"worker"`
	Instance     int64           `json:"instance"`
	Session      string          `json:"session"`
	TokenUntil   string          `json:"token_until"`
}

// connColumns are the columns of a list.
func connColumns() []show.Column[connRow] {
	return []show.Column[connRow]{
		show.As("CONNECTION", func(c *connRow, _ time.Time) string { return show.Name(c.ID) }),
		show.As("USER", func(c *connRow, _ time.Time) string { return show.Name(c.User) }),
		show.As("ADDRESS", func(c *connRow, _ time.Time) string { return show.Name(c.Address) }),
		show.As("AGE", func(c *connRow, now time.Time) string { return show.Ago(c.ConnectedAt, now) }),
		show.As("IDLE", func(c *connRow, now time.Time) string { return show.Ago(c.LastActivity, now) }),
		show.As("ROOMS", func(c *connRow, _ time.Time) string { return strconv.Itoa(len(c.Rooms)) }),
		show.As("BACKLOG", func(c *connRow, _ time.Time) string { return show.Size(c.Backlog) }),
		show.As("IN", func(c *connRow, _ time.Time) string { return show.Count(c.Received) }),
		show.As("OUT", func(c *connRow, _ time.Time) string { return show.Count(c.Sent) }),
		show.As("WORKER", func(c *connRow, _ time.Time) string { return c.worker() }),
	}
}

// worker is the index of a connection's worker, or the instance where the server does not know the index at the moment.
func (c *connRow) worker() string {
	if c.Worker != nil {
		return show.Count(c.Worker)
	}
	return "#" + strconv.FormatInt(c.Instance, 10)
}

// connFacts are the lines of one connection.
func connFacts() []show.Column[connRow] {
	return append(connColumns(),
		show.As("SESSION", func(c *connRow, _ time.Time) string { return show.Name(c.Session) }),
		show.As("TOKEN UNTIL", func(c *connRow, _ time.Time) string { return show.Name(c.TokenUntil) }),
		show.As("IN ROOMS", func(c *connRow, _ time.Time) string { return show.Names(c.Rooms) }),
		show.As("ATTRIBUTES", func(c *connRow, _ time.Time) string { return show.Printable(string(c.Attributes)) }))
}

// connQuery are the flags that choose connections.
//
// Owner: the command.
type connQuery struct {
	user, room, address, attribute, sort string
	limit                                int
}

func (q *connQuery) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&q.user, "user", "", "only connections of this user")
	f.StringVar(&q.room, "room", "", "only members of this room")
	f.StringVar(&q.address, "address", "", "only connections from this IP address")
	f.StringVar(&q.attribute, "attribute", "", "only connections whose attribute has this value: NAME:JSON, such as team:7")
	f.StringVar(&q.sort, "sort", "", "sort by backlog, idle or age over all workers, and list the first, at most 1000")
	f.IntVar(&q.limit, "limit", 0, "list at most this many; 0 means all")
	cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions([]string{"backlog", "idle", "age"}, cobra.ShellCompDirectiveNoFileComp))
}

// values are the parameters of the request.
func (q *connQuery) values() (url.Values, error) {
	if err := checkLimit(q.limit); err != nil {
		return nil, err
	}
	if q.sort != "" && q.limit > pageRows {
		return nil, Error{Usage, fmt.Errorf("--limit: with --sort the list has at most %d rows; give a smaller number", pageRows)}
	}
	return filled(map[string]string{"user": q.user, "room": q.room, "address": q.address, "attribute": q.attribute, "sort": q.sort}), nil
}

func checkLimit(n int) error {
	if n < 0 {
		return Error{Usage, fmt.Errorf("--limit: %d is negative; give 0 for all", n)}
	}
	return nil
}

// filled are the parameters that are not empty.
func filled(all map[string]string) url.Values {
	query := url.Values{}
	for name, value := range all {
		if value != "" {
			query.Set(name, value)
		}
	}
	return query
}

func (l Local) connsList(use string, args cobra.PositionalArgs) *cobra.Command {
	r := remote{local: l}
	var q connQuery
	cmd := &cobra.Command{
		Use:     use,
		Short:   "List connections",
		Example: "  parley conns ls --sort backlog --limit 10",
		Args:    args,
		RunE: r.with(func(cmd *cobra.Command, at *place, _ []string) error {
			query, err := q.values()
			if err != nil {
				return err
			}
			return show.List(cmd.OutOrStdout(), r.asJSON, at.pages(cmd.Context(), "/v1/connections", query, q.limit), connColumns())
		}),
	}
	r.flags(cmd)
	q.flags(cmd)
	return cmd
}

func (l Local) connsShow() *cobra.Command {
	r := remote{local: l}
	cmd := &cobra.Command{
		Use:   "show CONNECTION",
		Short: "Describe a connection",
		Args:  takesOne("connection: the id that `parley conns ls` shows"),
		RunE: r.with(func(cmd *cobra.Command, at *place, args []string) error {
			body, err := at.get(cmd.Context(), "/v1/connection", url.Values{"id": args})
			if err != nil {
				return err
			}
			return show.One(cmd.OutOrStdout(), r.asJSON, body, connFacts())
		}),
	}
	r.flags(cmd)
	return cmd
}

// takesOne wants one argument; what names it.
func takesOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return Error{Usage, fmt.Errorf("%s takes one %s", cmd.CommandPath(), what)}
		}
		return nil
	}
}

// farewell are the flags that say how connections are closed.
type farewell struct {
	code   int
	reason string
	ends   bool
}

func (f *farewell) flags(cmd *cobra.Command) {
	cmd.Flags().IntVar(&f.code, "code", 0, "close with this code, such as 4100; by default 4007, after which clients stay away")
	cmd.Flags().StringVar(&f.reason, "reason", "", "tell the client this reason")
	cmd.Flags().BoolVar(&f.ends, "end-sessions", false, "end the sessions, too, so that no client can resume them")
}

// add puts the flags into a request.
func (f *farewell) add(to object) object {
	if f.code != 0 {
		to = to.number("code", int64(f.code))
	}
	if f.reason != "" {
		to = to.text("reason", f.reason)
	}
	if f.ends {
		to = to.json("resume", []byte("false"))
	}
	return to
}

func (l Local) connsKick() *cobra.Command {
	r := remote{local: l}
	var f farewell
	cmd := &cobra.Command{
		Use:   "kick CONNECTION",
		Short: "Close a connection",
		Args:  takesOne("connection: the id that `parley conns ls` shows"),
		RunE: r.with(func(cmd *cobra.Command, at *place, args []string) error {
			return r.carryOut(cmd, at, action{"/v1/disconnect", f.add(object(nil).text("connection", args[0])).end(), saysClosed})
		}),
	}
	r.flags(cmd)
	f.flags(cmd)
	return cmd
}

func (l Local) disconnect() *cobra.Command {
	r := remote{local: l}
	var f farewell
	user := ""
	cmd := &cobra.Command{
		Use:   "disconnect --user U",
		Short: "Close all connections of a user",
		Args:  l.NoArguments,
		RunE: r.with(func(cmd *cobra.Command, at *place, _ []string) error {
			if user == "" {
				return Error{Usage, errors.New("--user is missing: name the user whose connections the server should close")}
			}
			return r.carryOut(cmd, at, action{"/v1/disconnect", f.add(object(nil).text("user", user)).end(), saysClosed})
		}),
	}
	r.flags(cmd)
	f.flags(cmd)
	cmd.Flags().StringVar(&user, "user", "", "close the connections of this user")
	return cmd
}
