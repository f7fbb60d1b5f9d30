package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/bus"
	"github.com/parleyd/parley/engine/cluster/supervise"
)

// The bus process carries the workers' messages to each other, unless an external bus does, and numbers the messages of rooms
// with history.

// errStuck is why a bus process does not beat.
var errStuck = errors.New("the sequencer takes no turns")

func runBus(ctx context.Context, srv *engine.Server, o Options) error {
	control, err := supervise.Join()
	if err != nil {
		return err
	}
	given, err := parseInheritance(control.Welcome())
	if err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	server, end, err := carry(ctx, control.Welcome(), given, o)
	if err != nil {
		return err
	}
	defer end()
	numbers := newSequencer(srv.Config(), control.Welcome(), o)
	ended := make(chan error, 1)
	go func() { ended <- numbers.run(serving, sequencerLink(srv.Config(), control.Welcome(), given, server)) }()
	address := ""
	if server != nil {
		address = server.Addr()
		select { // at once: the server is in this process
		case <-numbers.begun:
		case err := <-ended:
			return err
		}
	} // an external bus may be away for long, and the sequencer waits for it: ending would not help
	control.Ready(address)
	go control.Pulse(serving, func(context.Context) error {
		if numbers.stuck() {
			return errStuck
		}
		return control.Stats(busReport{ownProcess(), numbers.stats()})
	})
	for {
		select {
		case err := <-ended:
			return err
		case order := <-control.Orders():
			switch order := order.(type) {
			case supervise.Peers:
				for _, d := range order.Dead {
					numbers.bury(d.Instance)
				}
			case supervise.Reload:
				control.Reloaded(order, inherit(order.Settings, nil, o))
			case supervise.Drain:
				stop()
				<-ended
				end()
				if order.Orphaned && given.Temporary {
					os.RemoveAll(given.Dir) // in place of the supervisor
				}
				return nil
			}
		}
	}
}

// carry starts the embedded bus, which end stops. An external one needs none: server is nil then.
func carry(ctx context.Context, welcome supervise.Welcome, given inheritance, o Options) (server *bus.Server, end func(), err error) {
	if given.BusURL != "" {
		return nil, func() {}, nil
	}
	port := 0
	if _, text, err := net.SplitHostPort(welcome.Bus.Address); err == nil {
		if port, err = strconv.Atoi(text); err != nil {
			return nil, nil, fmt.Errorf("read address of the bus: %w", err)
		}
	}
	if err := restoreDir(given); err != nil {
		return nil, nil, err
	}
	held, err := lock(ctx, given.Dir, lockWait, o.Log)
	if err != nil {
		return nil, nil, err
	}
	server, err = bus.Start(bus.ServerOptions{Dir: given.Dir, Secret: welcome.Bus.Secret, Port: port, Log: o.Log})
	if err != nil {
		held.Close()
		return nil, nil, err
	}
	return server, func() {
		server.Close()
		held.Close()
	}, nil
}

// sequencerLink says how the sequencer reaches the bus.
func sequencerLink(cfg engine.Config, welcome supervise.Welcome, given inheritance, server *bus.Server) bus.LinkOptions {
	to := bus.LinkOptions{Instance: welcome.Instance, Sequencer: true}
	if server != nil {
		to.Local, to.Password = server, bus.SequencerPassword(welcome.Bus.Secret, welcome.Instance)
	} else {
		to.URL, to.External, to.File = given.BusURL, true, cfg.BusCredentials
	}
	return to
}
