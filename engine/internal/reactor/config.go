package reactor

import (
	"net"

	"github.com/parleyd/parley/engine/internal/turn"
)

// Config is what a reactor is told by the server that it runs.
//
// Owner: immutable.
type Config struct {
	Ground *turn.Ground
	Loops  []*turn.Loop
	Count  *turn.Counters // of what belongs to no loop
	Plan   Plan
	Sends  string // one of [Sends]

	Address  string   // to listen on
	Listener Listener // in place of that: a socket that several workers share

	// Accepting is called when the loops run, before the first connection is accepted.
	Accepting func()
	// MustReturn is deferred where a handler that ends its goroutine would end a loop.
	MustReturn func(returned *bool)
	// OthersAccept reports whether another worker may take what this one leaves in the socket that they share. Any
	// goroutine, as SayFull.
	OthersAccept func() bool
	// SayFull tells the other workers whether this one is full; nil where there are none.
	SayFull func(full bool)
}

// Listener is where connections come from: a *net.TCPListener, or a socket that several workers share.
type Listener interface {
	// AcceptTCP waits for a connection. After Close it returns [net.ErrClosed]. A connection without a remote address
	// (its peer has reset it) is closed by the server and counted in accept_errors.
	AcceptTCP() (*net.TCPConn, error)
	Addr() net.Addr
	Close() error
}
