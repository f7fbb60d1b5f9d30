//go:build !linux

package verify

import (
	"errors"
	"net"
	"time"
)

// The clients are driven by epoll, which only Linux has. On other systems newPoller fails, and no other function of this
// file is called.

var errLinuxOnly = errors.New("verify drives its clients with epoll: run it on Linux; the server may be anywhere")

type interest uint8

const (
	watchNothing interest = iota
	watchInput
	watchBoth
)

type ready struct {
	fd                 int
	readable, writable bool
}

type poller struct{}

func newPoller(*net.TCPAddr) (*poller, error) { return nil, errLinuxOnly }

func (p *poller) shut()                               {}
func (p *poller) dial() (int, error)                  { return -1, errLinuxOnly }
func (p *poller) connected(int) error                 { return errLinuxOnly }
func (p *poller) watch(int, interest, interest)       {}
func (p *poller) read(int, []byte) (int, bool, error) { return 0, false, errLinuxOnly }
func (p *poller) write(int, []byte) (int, error)      { return 0, errLinuxOnly }
func (p *poller) hangUp(int)                          {}
func (p *poller) wait(time.Duration) ([]ready, error) { return nil, errLinuxOnly }
