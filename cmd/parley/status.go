package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/cmd/parley/show"
	"github.com/parleyd/parley/engine"
)

// report is the output of status.
type report struct {
	URL    string       `json:"url"`
	Health string       `json:"health"` // "ok", or the fault
	Stats  engine.Stats `json:"stats"`
}

func newStatus() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "status [URL]",
		Short: "Show the workers, connections and rooms of a running server",
		Long: "Show the workers, connections, rooms and restarts of a running server, as its admin listener reports them. The address\n" +
			"follows from the same settings that serve reads, or is URL (http://host:port).\n\n" +
			"Exit code 0: the server is well. 1: it is not. 2: a mistake in the command line. 3: no server answers.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("status takes one URL, not %d", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := adminURL(cmd, args, "/stats")
			if err != nil {
				return err
			}
			r, err := ask(cmd.Context(), target)
			if err != nil {
				return exitError{exitUnreachable, err}
			}
			if err := r.write(cmd.OutOrStdout(), asJSON, time.Now()); err != nil {
				return err
			}
			if r.Health != "ok" {
				return exitError{exitFailed, nil}
			}
			return nil
		},
	}
	addFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print all figures as JSON")
	return cmd
}

// ask asks an admin listener for its figures and its health.
func ask(ctx context.Context, target string) (*report, error) {
	at, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	base := at.Scheme + "://" + at.Host
	r := &report{URL: base}
	status, body, err := fetch(ctx, target)
	var dead *url.Error
	switch {
	case errors.As(err, &dead):
		return nil, fmt.Errorf("no server answers on %s (%w): is it running? If its admin listener is elsewhere, give the address: parley status http://host:port", base, dead.Err)
	case err != nil:
		return nil, fmt.Errorf("ask %s: %w", base, err)
	}
	if err := json.Unmarshal(body, &r.Stats); status != http.StatusOK || err != nil {
		return nil, fmt.Errorf("%s is no admin listener of Parley: it answers %d to /stats; look at admin_port", base, status)
	}
	status, body, err = fetch(ctx, base+"/healthz")
	switch {
	case err != nil:
		r.Health = err.Error()
	default:
		r.Health = strings.TrimSpace(string(body))
		if r.Health == "" {
			r.Health = http.StatusText(status)
		}
	}
	return r, nil
}

const statsBytesMax = 4 << 20

func fetch(ctx context.Context, target string) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return 0, nil, err
	}
	client := &http.Client{Timeout: healthWait, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, statsBytesMax))
	return response.StatusCode, body, err
}

func (r *report) write(to io.Writer, asJSON bool, now time.Time) error {
	if asJSON {
		encoder := json.NewEncoder(to)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	s := &r.Stats
	fmt.Fprintf(to, "%s: %s\n", r.URL, r.Health)
	fmt.Fprintf(to, "up %s, %d of %d connections, %d rooms, %d sessions waiting, %d messages in, %d out\n",
		show.Span(time.Duration(s.Uptime)*time.Second), s.Connections, s.MaxConnections, s.Rooms, s.Sessions, s.MessagesReceived, s.MessagesSent)
	if s.Auth == 0 {
		fmt.Fprintln(to, "auth is off: every client may connect and join")
	}
	if len(s.Workers) == 0 {
		_, err := fmt.Fprintf(to, "one process with %d event loops, no supervisor\n", len(s.Loops))
		return err
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "\nprocess\tinstance\tpid\tstate\tup\tconnections\trooms\tbus\trestarts\tlast end\n")
	for _, x := range s.Workers {
		fmt.Fprintf(w, "worker %d\t%d\t%s\t%s\t%s\t%d\t%d\t%s\t%d\t%s\n", x.Index, x.Instance, show.OrDash(x.PID, strconv.Itoa(x.PID)), x.State,
			since(x.StartedAt, now), x.Connections, x.Rooms, link(x.Bus), x.Restarts, show.OrDash(x.Restarts+len(x.Cause), x.Cause))
	}
	if b := s.BusProcess; b != nil {
		fmt.Fprintf(w, "bus\t-\t%s\t%s\t%s\t-\t-\t-\t%d\t%s\n", show.OrDash(b.PID, strconv.Itoa(b.PID)), b.State, since(b.StartedAt, now), b.Restarts,
			show.OrDash(b.Restarts+len(b.Cause), b.Cause))
	}
	if err := w.Flush(); err != nil || s.BusProcess == nil {
		return err
	}
	return writeOrder(to, s.BusProcess)
}

// writeOrder writes what the bus process keeps of rooms with history, if there are any.
func writeOrder(to io.Writer, b *engine.WorkerStats) error {
	o := b.Order
	if o == nil || o.Rooms == 0 && o.Numbered == 0 {
		return nil
	}
	_, err := fmt.Fprintf(to, "\nthe bus has numbered %s for rooms with history, and keeps %s of %s in %s\n", show.Things(int(o.Numbered), "message"),
		show.Things(int(o.Messages), "message"), show.Things(int(o.Rooms), "room"), show.Size(o.Memory))
	return err
}

// link is the state of a worker's link to the bus, and the number of batches lost on it.
func link(b *engine.BusStats) string {
	switch {
	case b == nil:
		return "-"
	case !b.Up:
		return "away"
	case b.Unkept != "":
		return "up, keeps nothing"
	case b.Lost > 0:
		return fmt.Sprintf("up, %d lost", b.Lost)
	}
	return "up"
}

func since(unix int64, now time.Time) string {
	if unix == 0 {
		return "-"
	}
	return show.Span(now.Sub(time.Unix(unix, 0)))
}
