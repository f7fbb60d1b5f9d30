package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/show"
	"github.com/parleyd/parley/protocol/message"
)

// publication is what the flags and the first argument say about a message: all but its data.
//
// Owner: the command.
type publication struct {
	user                      string
	everybody, message, count bool
	room                      string
	once, key                 string
	unkept                    bool
}

func (p *publication) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.user, "user", "", "publish to the connections of this user; DATA is a message")
	f.BoolVar(&p.everybody, "everybody", false, "publish to all connections; DATA is a message")
	f.BoolVar(&p.message, "message", false, "DATA is a message, an object with a string \"type\", and is sent as it is")
	f.BoolVar(&p.count, "count", false, "ask every worker, and print for how many connections the message was queued")
	f.StringVar(&p.once, "idempotency-key", "", "in a room with history: publish nothing if this key published there before, within 5 minutes")
	f.StringVar(&p.key, "key", "", "in a room with history and slow:conflate: a slow member gets only the newest message with this key")
	f.BoolVar(&p.unkept, "no-history", false, "in a room with history: the message takes no number and is not kept")
}

// take finds the room and the data among the arguments.
func (p *publication) take(args []string) (data string, err error) {
	toRoom := p.user == "" && !p.everybody
	switch {
	case p.user != "" && p.everybody:
		return "", Error{Usage, errors.New("give --user or --everybody, not both")}
	case toRoom && len(args) != 2:
		return "", Error{Usage, fmt.Errorf("publish takes a room and JSON, as in parley publish lobby '{\"a\":1}', and not %s", show.Things(len(args), "argument"))}
	case !toRoom && len(args) != 1:
		return "", Error{Usage, fmt.Errorf("publish takes one message, and no room, with --user and --everybody, and not %s", show.Things(len(args), "argument"))}
	case p.once != "" && args[len(args)-1] == "-":
		return "", Error{Usage, errors.New("--idempotency-key: a key belongs to one message, and - publishes a message for each line; leave one of the two out")}
	case toRoom:
		p.room = args[0]
	default:
		p.message = true // the form of data names a room
	}
	return args[len(args)-1], nil
}

// add puts the message into a request.
func (p *publication) add(to object, data []byte) object {
	switch {
	case p.user != "":
		to = to.text("user", p.user)
	case p.everybody:
		to = to.yes("everybody")
	default:
		to = to.text("room", p.room)
	}
	if p.count {
		to = to.yes("count")
	}
	if p.once != "" {
		to = to.text("idempotency_key", p.once)
	}
	if p.key != "" {
		to = to.text("key", p.key)
	}
	if p.unkept {
		to = to.json("history", []byte("false"))
	}
	if p.message {
		return to.json("message", data)
	}
	return to.json("data", data)
}

// says is the outcome in words.
func (p *publication) says(o *outcome) string {
	switch {
	case o.Duplicate:
		return fmt.Sprintf("published before: the message has the number %d", o.Seq)
	case !p.count:
		return ""
	}
	return "queued for " + show.Things(o.Recipients, "connection")
}

func (l Local) publish() *cobra.Command {
	r := remote{local: l}
	var p publication
	cmd := &cobra.Command{
		Use:   "publish ROOM DATA | --user U MESSAGE | --everybody MESSAGE",
		Short: "Publish JSON to a room, to a user, or to everybody",
		Long: "Publish JSON to the members of a room, to the connections of a user, or to everybody. Members of a room get DATA in\n" +
			"{\"type\":\"broadcast\",\"room\":ROOM,\"data\":DATA,...}; with --message DATA is sent as it is.\n\n" +
			"If DATA is -, each line of standard input is published, in order, without waiting for one answer before the next is\n" +
			"sent. The command ends at the first line that fails, and says its number. Empty lines are skipped.\n\n" +
			"Exit code 0: done. 1: failed, or some workers did not answer. 2: a mistake in the command line or in the JSON.\n" +
			"3: no server answers. 4: the server refuses it, and says why.",
		Example: "  parley publish lobby '{\"text\":\"hello\"}'\n" +
			"  parley publish lobby '\"a text stands in two pairs of quotes\"'\n" +
			"  parley publish --user 42 '{\"type\":\"notice\",\"text\":\"you have mail\"}'\n" +
			"  parley publish lobby -- -5\n" +
			"  parley publish orders '{\"id\":7}' --idempotency-key order-7\n" +
			"  tail -f events.ndjson | parley publish events -",
		RunE: r.with(func(cmd *cobra.Command, at *place, args []string) error {
			text, err := p.take(args)
			if err != nil {
				return err
			}
			if text == "-" {
				return r.publishLines(cmd, at, &p)
			}
			data, err := jsonOf(text)
			if err != nil {
				return Error{Usage, err}
			}
			return r.carryOut(cmd, at, action{"/v1/publish", p.add(nil, data).end(), p.says})
		}),
	}
	r.flags(cmd)
	p.flags(cmd)
	return cmd
}

// jsonOf takes an argument that is JSON, as it is. The error says what to change.
func jsonOf(text string) ([]byte, error) {
	err := checkJSON([]byte(text))
	switch {
	case err == nil:
		return []byte(text), nil
	case strings.TrimSpace(text) == "":
		return nil, errors.New("the JSON is empty; the empty text is '\"\"'")
	case strings.ContainsAny(text[:1], "{[\""):
		return nil, fmt.Errorf("%w; if the shell has taken its quotes, put single quotes around the whole", err)
	}
	return nil, fmt.Errorf("%w; if it is meant as a text, quote it twice: %s", err, shellText(clipped(text)))
}

// checkJSON wants one JSON value.
func checkJSON(text []byte) error {
	if json.Valid(text) && utf8.Valid(text) {
		return nil
	}
	var value any
	err := json.Unmarshal(text, &value)
	if err == nil {
		err = errors.New("it is not valid UTF-8")
	}
	return fmt.Errorf("%s is no JSON (%w)", strconv.Quote(clipped(string(text))), err)
}

const clipRunes = 60 // of an operator's text in an error

func clipped(text string) string {
	if runes := []rune(text); len(runes) > clipRunes {
		return string(runes[:clipRunes]) + "..."
	}
	return text
}

// shellText is a text as JSON, quoted for a shell.
func shellText(text string) string {
	return "'" + strings.ReplaceAll(string(message.AppendString(nil, text)), "'", `'\''`) + "'"
}
