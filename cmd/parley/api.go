package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/spf13/cobra"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/engine/api"
	"github.com/parleyd/parley/engine/cluster"
	"github.com/parleyd/parley/protocol/proxy"
)

// backends is the HTTP API of serve: in the only process, or in the api process.
//
// Owner: the command; serving is atomic, and mu is held where settings change or are shown.
type backends struct {
	settings *settings
	mu       sync.Mutex
	log      *slog.Logger
	guard    *access.Guard // nil in processes without connections
	server   *engine.Server
	serving  atomic.Pointer[api.Server] // nil in the other processes
	operator *cluster.Operator          // nil in the other processes
	addr     net.Addr                   // of the parent, once it is ready
}

// prepare holds the clients to their tokens, makes a key for backends where there is none, and hands the settings on to the
// children of a supervisor. end undoes what must not outlive the server.
func (b *backends) prepare(srv *engine.Server) (end func(), err error) {
	b.server = srv
	if b.guard, err = b.settings.guard(b.log); err != nil {
		return nil, err
	}
	if b.guard != nil {
		b.guard.Install(srv)
	}
	if !cluster.Parent() {
		return func() {}, nil
	}
	if end, err = b.settings.provide(); err != nil || b.settings.Processes == 1 {
		return end, err
	}
	return end, handOn(b.settings)
}

// options are nil if the API is off.
func (b *backends) options() *cluster.API {
	if b.settings.APIPort == 0 {
		return nil
	}
	return &cluster.API{
		Address: net.JoinHostPort(b.settings.APIHost, strconv.Itoa(b.settings.APIPort)),
		Operate: func(o *cluster.Operator) { b.operator = o },
		Serve:   b.serve,
		Ready:   b.ready,
	}
}

func (b *backends) serve(ctx context.Context, srv *engine.Server, l net.Listener) error {
	keys, err := api.CompileKeys(b.settings.Keys)
	if err != nil {
		return err
	}
	o := api.Options{Keys: keys, Operator: b.operator, Settings: func() any { return b.inForce(srv) }, Log: b.log}
	if b.settings.Auth != "off" {
		o.Tokens = b.guard
	}
	if proxies := srv.Config().TrustedProxies; len(proxies) > 0 {
		if o.Trusted, err = proxy.NewTrust(proxies); err != nil {
			return err
		}
	}
	server := api.New(srv, o)
	b.serving.Store(server)
	go followGarbage(ctx)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), srv.Config().ShutdownTimeout)
	defer cancel()
	if err := server.Shutdown(bounded); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return <-served
}

// adopt takes the keys of a reload.
func (b *backends) adopt(entries []api.KeyEntry) {
	b.settings.Keys = entries
	server := b.serving.Load()
	if server == nil {
		return
	}
	keys, err := api.CompileKeys(entries)
	if err != nil {
		b.log.Error("the new keys of the HTTP API cannot be used, and the old ones stay", "err", err) // the parent has compiled them
		return
	}
	server.SetKeys(keys)
	b.log.Info("the HTTP API has new keys", "count", keys.Len())
}

// provide makes a key for this run if the operator has given none; remove deletes its file.
func (s *settings) provide() (remove func(), err error) {
	if s.APIPort == 0 || len(s.Keys) > 0 {
		return func() {}, nil
	}
	if s.runKey, err = newRunKey(s.APIPort); err != nil {
		return nil, err
	}
	s.Keys = []api.KeyEntry{s.runKey.entry}
	return s.runKey.remove, nil
}

// ready is called when the API's port is this server's, with its address.
func (b *backends) ready(addr net.Addr) {
	b.addr = addr
	if b.settings.runKey == nil {
		return
	}
	if err := b.settings.runKey.write(); err != nil {
		b.log.Error("commands on this machine find no key of the API; name keys in api_keys_file", "err", err)
		return
	}
	b.log.Info("no key of the HTTP API is configured, so the server made one for this run; only this user can read its file", "file", b.settings.runKey.path)
}

// apiURL is the address of the API of a server with the settings of a command.
func apiURL(cmd *cobra.Command) (string, error) {
	s, _, err := load(cmd)
	switch {
	case err != nil:
		return "", err
	case s.APIPort == 0:
		return "", usageError{errors.New("api_port is 0, so that the server has no API; give it a port, or name another server with --url")}
	}
	return "http://" + net.JoinHostPort(reachable(s.APIHost), strconv.Itoa(s.APIPort)), nil
}

// socketURL is the address at which clients reach a server with the settings of a command.
func socketURL(cmd *cobra.Command) (string, error) {
	s, _, err := load(cmd)
	if err != nil {
		return "", err
	}
	return "ws://" + net.JoinHostPort(reachable(s.Host), strconv.Itoa(s.Port)) + "/", nil
}
