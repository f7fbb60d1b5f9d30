//go:build linux

package peers

import (
	"context"
	"net/http"
	"time"

	"github.com/centrifugal/centrifuge"
)

// serveCentrifuge follows centrifuge's chat example. It speaks a protocol of its own: channels for rooms, whose publishers
// get their own messages, too; an echo is a remote call. Several messages to one client may leave in one frame.
func serveCentrifuge(addr string, _ bool) error { return serveChannels(addr, false) }

// serveCentrifugeHistory lets its memory broker keep the newest 100 messages of a channel. A subscriber recovers what it missed.
func serveCentrifugeHistory(addr string, _ bool) error { return serveChannels(addr, true) }

func serveChannels(addr string, history bool) error {
	node, err := centrifuge.New(centrifuge.Config{ClientChannelLimit: 100_000})
	if err != nil {
		return err
	}
	var kept centrifuge.PublishOptions
	if history {
		kept.HistorySize, kept.HistoryTTL = 100, 5*time.Minute
	}
	node.OnConnecting(func(context.Context, centrifuge.ConnectEvent) (centrifuge.ConnectReply, error) {
		return centrifuge.ConnectReply{Credentials: &centrifuge.Credentials{}}, nil
	})
	node.OnConnect(func(c *centrifuge.Client) {
		c.OnSubscribe(func(_ centrifuge.SubscribeEvent, answer centrifuge.SubscribeCallback) {
			answer(centrifuge.SubscribeReply{Options: centrifuge.SubscribeOptions{EnableRecovery: history}}, nil)
		})
		c.OnPublish(func(_ centrifuge.PublishEvent, answer centrifuge.PublishCallback) {
			answer(centrifuge.PublishReply{Options: kept}, nil)
		})
		c.OnRPC(func(e centrifuge.RPCEvent, answer centrifuge.RPCCallback) {
			answer(centrifuge.RPCReply{Data: e.Data}, nil)
		})
	})
	if err := node.Run(); err != nil {
		return err
	}
	return http.ListenAndServe(addr, centrifuge.NewWebsocketHandler(node, centrifuge.WebsocketConfig{
		CheckOrigin: func(*http.Request) bool { return true },
	}))
}
