package client

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/show"
	"github.com/parleyd/parley/protocol/message"
)

// object makes a JSON object, field by field. It keeps JSON that is given to it byte for byte.
type object []byte

// json adds a field that is JSON already.
func (o object) json(name string, value []byte) object {
	if len(o) == 0 {
		o = append(o, '{')
	} else {
		o = append(o, ',')
	}
	return append(append(message.AppendString(o, name), ':'), value...)
}

func (o object) text(name, value string) object {
	return o.json(name, message.AppendString(nil, value))
}

func (o object) number(name string, value int64) object {
	return o.json(name, fmt.Appendf(nil, "%d", value))
}

// yes adds true.
func (o object) yes(name string) object { return o.json(name, []byte("true")) }

// end is the whole object.
func (o object) end() []byte { return append(o, '}') }

// outcome is what the API answers to an action.
//
// Owner: the command.
type outcome struct {
	missing
	Recipients int  `json:"recipients"`
	Closed     int  `json:"closed"`
	Left       int  `json:"left"`
	Delayed    bool `json:"delayed"`

	Seq       uint64 `json:"seq"`
	Duplicate bool   `json:"duplicate"`
}

// action is a request that changes something.
//
// Owner: the command.
type action struct {
	path string
	body []byte
	says func(*outcome) string // for a person; "" says nothing
}

// carryOut sends an action and shows its outcome. Where workers did not answer, the numbers are too low.
func (r *remote) carryOut(cmd *cobra.Command, at *place, a action) error {
	body, err := at.post(cmd.Context(), a.path, a.body)
	if err != nil {
		return err
	}
	var result outcome
	if err := json.Unmarshal(body, &result); err != nil {
		return at.stranger("its answer is malformed: %v", err)
	}
	if r.asJSON {
		err = show.JSON(cmd.OutOrStdout(), body)
	} else if text := a.says(&result); text != "" {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	}
	if err != nil {
		return err
	}
	if result.Delayed {
		sayDelayed(cmd)
	}
	return result.err()
}

func sayDelayed(cmd *cobra.Command) {
	fmt.Fprintln(cmd.ErrOrStderr(), "parley: delayed: the bus is away, and members on other workers get the message when it is back")
}

func saysClosed(o *outcome) string { return "closed " + show.Things(o.Closed, "connection") }
