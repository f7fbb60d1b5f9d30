// Package connect is a client of the wire protocol for a person at a terminal, and for scripts: `parley connect`.
//
// What it refuses to do: to write a character of a message to a terminal that a terminal could obey. Start reading at Run, in
// client.go; what a person types is in commands.go, what is printed in lines.go.
package connect

import (
	"io"
	"net/http"
	"net/url"
	"time"
)

// Form is how messages are printed.
type Form uint8

// The forms.
const (
	Lines Form = iota // a line for a person
	Raw               // the frames of both directions, with arrows
	JSON              // each message of the server as one line of JSON
)

// Options say where to connect, and how.
//
// Owner: immutable.
type Options struct {
	URL      *url.URL
	Token    func() (string, error) // the access token, "" for none; it is asked before each attempt
	Origin   string
	Header   http.Header
	Rooms    []string // to join
	Last     uint64   // of their newest messages, in rooms with history; 0 for none
	Form     Form
	Listen   bool // In is not read, and the client stays until it is interrupted
	Terminal bool // In is a terminal
	In       io.Reader
	Out, Err io.Writer // what the server says, and what the client itself says
	Limits   Limits    // the zero Limits are the usual ones
}

// Limits bound how long the client waits.
//
// Owner: immutable.
type Limits struct {
	Handshake  time.Duration // for a connection and the answer to the handshake
	Answer     time.Duration // for the greeting, for the first answers, and for the last ones
	Write      time.Duration // for the kernel to take a frame
	Quiet      time.Duration // without a byte of the server, until it is asked whether it is there
	Gone       time.Duration // without a byte of the server, until the connection is given up
	Close      time.Duration // for the server's close frame
	RetryMin   time.Duration // the bound of the first wait after a drop
	RetryMax   time.Duration // the bound of any wait
	RetryAgain time.Duration // a connection that was open for so long ends a row of failures
}

var usual = Limits{
	Handshake: 10 * time.Second, Answer: 10 * time.Second, Write: 10 * time.Second, Quiet: 25 * time.Second, Gone: 30 * time.Second,
	Close: 2 * time.Second, RetryMin: 500 * time.Millisecond, RetryMax: 20 * time.Second, RetryAgain: 5 * time.Second,
}

const (
	messageBytesMax = 64 << 20 // of the server
	lineBytesMax    = 8 << 20  // of the input
	shownBytesMax   = 4 << 10  // of a message, in a line for a person
)
