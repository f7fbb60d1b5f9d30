package api

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/parleyd/parley/protocol/message"
)

// sockets are the open sockets of a server.
//
// Owner: shared (mutex: mu).
type sockets struct {
	places chan struct{} // one for each
	mu     sync.Mutex
	open   map[*socket]bool
	ended  bool
}

// add reports false where the server ends.
func (x *sockets) add(k *socket) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return false
	}
	if x.open == nil {
		x.open = map[*socket]bool{}
	}
	x.open[k] = true
	return true
}

func (x *sockets) remove(k *socket) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.open, k)
}

// end closes all sockets.
func (x *sockets) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ended = true
	for k := range x.open {
		k.queue.finish(ws.StatusGoingAway, "the server ends")
	}
}

// wait waits, after end, until all sockets have ended.
func (x *sockets) wait(ctx context.Context) error {
	for range cap(x.places) {
		select {
		case x.places <- struct{}{}:
			defer func() { <-x.places }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// watchRequest is a message watch or unwatch on a socket.
type watchRequest struct {
	what  string
	every time.Duration
}

const watchLeast = time.Second

var watchFields = fields[watchRequest]{
	{"what", func(r *watchRequest, v []byte) string {
		wrong := takeText(&r.what, v)
		if wrong == "" && r.what != "stats" {
			wrong = "give stats: this version watches nothing else"
		}
		return wrong
	}},
	{"every", func(r *watchRequest, v []byte) string {
		var text string
		wrong := takeText(&text, v)
		var err error
		if r.every, err = time.ParseDuration(text); wrong == "" && (err != nil || r.every < watchLeast || r.every > time.Hour) {
			wrong = "give a time from 1s to 1h"
		}
		return wrong
	}},
}

// operate carries out a message, which may be about the socket itself.
func (k *socket) operate(c *call) ([]byte, *problem) {
	name, route, wrong := k.server.spoken.of(c)
	switch {
	case wrong != nil:
		return nil, wrong
	case name == "watch" || name == "unwatch":
		return k.changeWatch(c, name == "watch")
	}
	c.route = route
	if c.route.get != nil && c.route.get.reads.hold(c.object) {
		c.route = c.route.get
	}
	if c.route.body != nil {
		if most := c.route.body(k.server); int64(len(c.raw)) > most.bytes+refBytesMax {
			return nil, &problem{code: tooLarge, detail: most.says}
		}
	}
	return k.server.carryOut(c)
}

// changeWatch begins or ends the watch. A second one takes the place of the first.
func (k *socket) changeWatch(c *call, on bool) ([]byte, *problem) {
	r := watchRequest{every: watchLeast}
	if wrong := watchFields.decode(c.object, &r); wrong != nil {
		return nil, wrong
	}
	if r.what == "" {
		return nil, invalid([]fault{{"/what", "name what to watch: stats"}})
	}
	if !c.key.may(scopeRead) {
		return nil, &problem{code: forbidden, detail: "the key " + strconv.Quote(c.key.id) + " lacks the scope read"}
	}
	if wrong := c.key.addressesAll("figures of the server"); wrong != nil {
		return nil, wrong
	}
	if k.watch != nil {
		k.watch()
		k.watch = nil
	}
	if on {
		ctx, cancel := context.WithCancel(k.ctx)
		k.watch = cancel
		one := *c
		one.ctx, one.object = ctx, object{raw: []byte("{}")}
		one.route = k.server.routes["/v1/stats"]
		go k.tell(&one, r.every)
	}
	return []byte("{}"), nil
}

// tell sends figures until its call ends. A backend that has not read what came before gets none.
func (k *socket) tell(c *call, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if figures, wrong := k.server.carryOut(c); wrong == nil && c.ctx.Err() == nil {
			text := message.AppendString([]byte("{"), "stats")
			k.queue.put(queued{op: ws.OpText, text: append(append(append(text, ':'), figures...), '}')}, false)
		}
		select {
		case <-tick.C:
		case <-c.ctx.Done():
			return
		}
	}
}
