package cluster_test

import (
	"context"
	"log"
	"os"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster"
)

// A program with a handler of its own is four workers, a bus and their parent.
func Example() {
	srv, err := engine.New(engine.Config{Port: 9090, Processes: 4})
	if err != nil {
		os.Exit(cluster.ExitCode(err))
	}
	srv.On("shout", func(c *engine.Conn, _ *engine.Message, s *engine.Server) (any, error) {
		return nil, s.BroadcastAll(engine.M{"type": "shout", "from": c.ID()})
	})
	if err = cluster.Run(context.Background(), srv, cluster.Options{}); err != nil {
		log.Print(err)
	}
	os.Exit(cluster.ExitCode(err))
}
