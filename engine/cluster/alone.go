package cluster

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/supervise"
)

// runAlone is the server without supervisor and bus. Towards a service manager it acts as a supervisor does: it says when
// it is ready, reads its settings again on SIGHUP, and feeds the watchdog while its loops take turns.
func runAlone(ctx context.Context, srv *engine.Server, o Options) error {
	var notify supervise.Notifier
	notify.Begin(o.Log)
	defer notify.End()
	hangups := make(chan os.Signal, 1)
	if o.Reload != nil {
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
	}
	if srv.Config().DataDir != "" {
		kept, err := openLocal(ctx, srv, o)
		if err != nil {
			return err
		}
		defer kept.close()
	}
	if err := srv.Start(); err != nil {
		return err
	}
	stopAPI, api, err := startAPI(ctx, srv, o)
	if err != nil {
		return errors.Join(err, srv.Shutdown(ctx))
	}
	o.API.sayReady(api)
	if o.Ready != nil {
		o.Ready(srv.Addr())
	}
	if o.Serving != nil {
		o.Serving(ctx)
	}
	notify.Ready()
	serveSignals(ctx, srv, o, signals{&notify, hangups})
	notify.Stopping()
	within, begun := srv.Config().ShutdownTimeout, time.Now()
	o.Log.Info("stopping", "why", context.Cause(ctx), "within", within)
	bounded, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	stopAPI()
	err = srv.Shutdown(bounded)
	o.Log.Info("stopped", "after", time.Since(begun).Round(time.Millisecond))
	return err
}

// signals connect the only process with its service manager and operator.
type signals struct {
	notify  *supervise.Notifier
	hangups <-chan os.Signal
}

// serveSignals feeds the watchdog and reloads on SIGHUP until ctx is done.
func serveSignals(ctx context.Context, srv *engine.Server, o Options, s signals) {
	var feed <-chan time.Time
	if every := s.notify.Watchdog(); every > 0 {
		t := time.NewTicker(every)
		defer t.Stop()
		feed = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-feed:
			if healthy(ctx, srv, s.notify.Watchdog()) {
				s.notify.Alive(now)
			}
		case <-s.hangups:
			s.notify.Reloading()
			reloadAlone(srv, o)
			s.notify.Ready()
		}
	}
}

func healthy(ctx context.Context, srv *engine.Server, within time.Duration) bool {
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	return srv.Healthy(bounded) == nil
}
