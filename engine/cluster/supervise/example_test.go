package supervise_test

import (
	"context"
	"fmt"
	"os"

	"github.com/parleyd/parley/engine/cluster/supervise"
)

// One program is the supervisor, the bus and the workers.
func Example() {
	if supervise.Role() == "" {
		err := supervise.Run(context.Background(), supervise.Plan{Listen: []string{"127.0.0.1:9090"}, Workers: 4, Bus: true})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(supervise.ExitCode(err))
	}
	control, err := supervise.Join()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	// Here the server of the role starts: its address is Welcome().Bus.Address, its sockets Welcome().Listeners.
	control.Ready("")
	go control.Pulse(context.Background(), func(context.Context) error { return nil })
	for order := range control.Orders() {
		switch order := order.(type) {
		case supervise.Peers: // forget the sessions and seats of order.Dead
		case supervise.Reload:
			control.Reloaded(order, []string{"port"})
		case supervise.Drain: // within order.Within
			return
		}
	}
}
