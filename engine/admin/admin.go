// Package admin serves pages for operators, over HTTP, on a listener of its own: the chat page for trying the server in a
// browser, the bare page beside it, /healthz, /readyz, /stats and /metrics. The chat page's parley.js is the client in
// TypeScript, as `npm run page` in clients/js builds it.
//
// What it refuses to do: change the server, and authenticate. Other machines reach it only if Options.Host says so.
//
// Start reading at [New].
package admin

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/parleyd/parley/engine"
)

//go:embed page
var pageFiles embed.FS

// Options have the listening address.
type Options struct {
	Host string
	Port int          // 0 turns the listener off; -1 lets the kernel choose
	Log  *slog.Logger // nil means slog's default
}

// Source is the observed server, of one worker or several. Its methods are for any goroutine.
type Source interface {
	Stats() engine.Stats
	Healthy(ctx context.Context) error
	// Ready returns why newcomers would be refused; nil if they would not.
	Ready(ctx context.Context) error
	// Degraded names a fault of a server that serves nevertheless; empty if there is none.
	Degraded() string
	Addr() net.Addr
}

// Admin is the admin listener.
//
// Owner: immutable after New.
type Admin struct {
	srv      Source
	log      *slog.Logger
	listener net.Listener
	http     *http.Server
}

const (
	writeTimeout   = 30 * time.Second // bounds how long a client that does not read keeps a goroutine and a descriptor
	headerBytesMax = 16 << 10         // net/http adds 4 KiB to it
)

// New listens and serves in the background. An error of listening says what the operator can do.
func New(srv Source, o Options) (*Admin, error) {
	a := &Admin{srv: srv}
	if o.Port == 0 {
		return a, nil
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	address := net.JoinHostPort(o.Host, strconv.Itoa(max(o.Port, 0)))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listen on %s for admin_port: another process has this port, perhaps another parley serve; stop it, choose another port, or 0 for none: %w", address, err)
		}
		return nil, fmt.Errorf("listen on %s for admin_port: %w; choose another, or 0 for none", address, err)
	}
	a.listener, a.log = listener, o.Log
	a.http = &http.Server{
		Handler:           a.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      writeTimeout,
		MaxHeaderBytes:    headerBytesMax,
		IdleTimeout:       60 * time.Second,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	go func() {
		if err := a.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			o.Log.Error("the admin listener has ended: chat page, health, stats and metrics do not answer until a restart", "err", err)
		}
	}()
	return a, nil
}

// Addr is the listener's address; nil if it is off. Any goroutine.
func (a *Admin) Addr() net.Addr {
	if a.listener == nil {
		return nil
	}
	return a.listener.Addr()
}

// Close ends the listener and its connections.
func (a *Admin) Close() error {
	if a.http == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := a.http.Shutdown(ctx); err != nil {
		return a.http.Close()
	}
	return nil
}

func (a *Admin) handler() http.Handler {
	page, err := fs.Sub(pageFiles, "page")
	if err != nil {
		panic(err) // the embedded tree has no page
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(rescued{newCollector(a.srv), a.log})
	registerProcesses(registry, a.srv, a.log)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", a.health)
	mux.HandleFunc("GET /readyz", a.ready)
	mux.HandleFunc("GET /stats", a.stats)
	mux.HandleFunc("GET /server.json", a.server)
	mux.Handle("GET /", confined(http.FileServerFS(page)))
	return rescuing(guarded(mux), a.log)
}

// guarded refuses requests to a loopback address under a foreign name: another site could make its name resolve to this
// address, and read the answers through a visitor's browser. A request without a name (HTTP/1.0, as monitors on the same
// machine send it) comes from no browser.
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && isLoopback(local) && !isOwnName(r.Host) {
			http.Error(w, "this address is not served under the name "+strconv.Quote(r.Host), http.StatusMisdirectedRequest)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// confined tells browsers that the pages consist of this listener's files alone, and connect to nothing but it and WebSockets.
func confined(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "+
			"connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		next.ServeHTTP(w, r)
	})
}

// isOwnName reports whether a Host cannot be another site's name: it is an address, localhost in any spelling, or empty.
func isOwnName(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]") // an IPv6 address on port 80
	host = strings.TrimSuffix(host, ".")
	_, err := netip.ParseAddr(host)
	return host == "" || strings.EqualFold(host, "localhost") || err == nil
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// healthWait bounds the questions to the server.
const healthWait = 2 * time.Second

// ready answers 200 if newcomers are admitted, and otherwise 503 with the reason.
func (a *Admin) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthWait)
	defer cancel()
	if err := a.srv.Ready(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ready")
}

// health answers 200 if every loop takes turns, 503 if one is stuck or the server is shutting down. A server that serves,
// but cannot keep sessions or give out seats, answers 200 with the fault: to take it out of service would help no client.
func (a *Admin) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), healthWait)
	defer cancel()
	if err := a.srv.Healthy(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	if why := a.srv.Degraded(); why != "" {
		fmt.Fprintln(w, "degraded:", why)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (a *Admin) stats(w http.ResponseWriter, _ *http.Request) { writeJSON(w, a.srv.Stats()) }

// server tells the chat page where to connect.
func (a *Admin) server(w http.ResponseWriter, _ *http.Request) {
	port := 0
	if tcp, ok := a.srv.Addr().(*net.TCPAddr); ok {
		port = tcp.Port
	}
	writeJSON(w, map[string]int{"port": port})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		return // the client is gone
	}
}
