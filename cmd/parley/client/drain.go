package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/show"
)

const (
	drainUsual = 30 * time.Second
	drainSpare = 2 * time.Minute        // that the end of the worker may take beyond the time for its clients
	drainPoll  = 500 * time.Millisecond // the figures of workers are up to half a second old
)

// process is a worker as the API lists it.
//
// Owner: immutable.
type process struct {
	Index       int64  `json:"index"`
	Instance    int64  `json:"instance"`
	State       string `json:"state"`
	Connections int    `json:"connections"`
}

// processes are the workers by their index; none if the server is one process.
func (at *place) processes(ctx context.Context) (list map[int64]process, err error) {
	body, err := at.get(ctx, "/v1/workers", url.Values{})
	if err != nil {
		return nil, err
	}
	var all struct {
		Workers []process `json:"workers"`
	}
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, at.stranger("its list of workers is malformed: %v", err)
	}
	list = map[int64]process{}
	for _, w := range all.Workers {
		list[w.Index] = w
	}
	return list, nil
}

// drain sends the clients of one worker away.
func (l Local) drain() *cobra.Command {
	r := remote{local: l}
	within := drainUsual
	cmd := &cobra.Command{
		Use:   "drain WORKER",
		Short: "Send the clients of a worker away, one by one, and follow until it has ended and is started again",
		Long: "Send the clients of a worker away, one by one, to the other workers; they resume their sessions there. The worker then ends,\n" +
			"and the supervisor starts it again. WORKER is an index as `parley status` shows it. The command follows the worker until\n" +
			"it has ended; if the command is interrupted, the worker drains on. The key needs the scopes operate and read.",
		Example: "  parley drain 1 --within 1m",
		Args:    takesOne("worker: an index such as 0 or 1, as `parley status` shows it"),
		RunE: r.with(func(cmd *cobra.Command, at *place, args []string) error {
			index, err := strconv.ParseInt(args[0], 10, 32)
			if err != nil || index < 0 {
				return Error{Usage, fmt.Errorf("%q is not the index of a worker: give 0, 1, 2 ...", args[0])}
			}
			before, err := at.processes(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := at.post(cmd.Context(), "/v1/drain", object(nil).number("worker", index).text("within", within.String()).end()); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), within+drainSpare)
			defer cancel()
			return r.follow(ctx, cmd, at, before[index])
		}),
	}
	r.flags(cmd)
	cmd.Flags().DurationVar(&within, "within", drainUsual, "send the clients away over this time, at most 1h")
	return cmd
}

// follow shows a worker that drains until its process has ended.
func (r *remote) follow(ctx context.Context, cmd *cobra.Command, at *place, was process) error {
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	shown := -1
	for {
		now, err := at.processes(ctx)
		is := now[was.Index]
		left := is.Connections
		switch failed, isFailed := errors.AsType[Error](err); {
		case ctx.Err() != nil: // below
		case err != nil && !(isFailed && failed.Code == Failed):
			return err
		case err != nil: // a process that is busy answers the next time
		case is.Instance != was.Instance || is.State == "backoff":
			return r.step(cmd, was.Index, "drained", 0)
		case is.State == "draining" && left != shown:
			shown = left
			if err := r.step(cmd, was.Index, is.State, left); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return Error{Failed, fmt.Errorf("worker %d had %s left when the command stopped to follow it; it drains on", was.Index, show.Things(max(shown, 0), "connection"))}
		}
	}
}

// step shows how far a worker is.
func (r *remote) step(cmd *cobra.Command, worker int64, state string, left int) (err error) {
	if r.asJSON {
		return show.JSON(cmd.OutOrStdout(), object(nil).number("worker", worker).text("state", state).number("connections", int64(left)).end())
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "worker %d: %s, %s\n", worker, state, show.Things(left, "connection"))
	return err
}
