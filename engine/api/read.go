package api

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/protocol/message"
)

// raw is JSON that is passed on as it is.
type raw = json.RawMessage

// timeText writes milliseconds since the epoch as a time of RFC 3339.
func timeText(millis int64) string {
	return time.UnixMilli(millis).UTC().Format("2006-01-02T15:04:05.000Z")
}

// reads makes the operation of a route that reads one thing.
func reads(read func(s *Server, c *call, q *readRequest, ctx context.Context) (any, error), check func(c *call, q *readRequest) *problem) func(s *Server, c *call) ([]byte, *problem) {
	return func(s *Server, c *call) ([]byte, *problem) {
		var q readRequest
		if wrong := c.route.reads.decode(c.object, &q); wrong != nil {
			return nil, wrong
		}
		if wrong := check(c, &q); wrong != nil {
			return nil, wrong
		}
		var value any
		var partial *engine.PartialError
		if wrong := s.ask(c, func(ctx context.Context) (err error) {
			value, err = read(s, c, &q, ctx)
			if value == nil && errors.Is(err, engine.ErrPartial) {
				return errIncomplete // there is nothing to show
			}
			partial, err = q.tolerate(err)
			return err
		}); wrong != nil {
			return nil, wrong
		}
		result, err := message.Encode(nil, value)
		if err != nil {
			return nil, s.problemOf(c, err)
		}
		return append(s.appendPartial(result[:len(result)-1], partial), '}'), nil
	}
}

// room describes a room.
func room(s *Server, _ *call, q *readRequest, ctx context.Context) (any, error) {
	stats, err := s.engine.Everywhere().Room(ctx, q.room)
	if stats.Name == "" {
		return nil, err
	}
	return rowOf(&stats), err
}

// checkRoom checks the room that a read names.
func checkRoom(c *call, q *readRequest) *problem { return c.seesRoom(q.room) }

// stats are the figures of all workers.
func stats(s *Server, _ *call, _ *readRequest, ctx context.Context) (any, error) {
	all, err := s.engine.Everywhere().Stats(ctx)
	return &all, err
}

// settings are those in force.
func settings(s *Server, _ *call, _ *readRequest, _ context.Context) (any, error) {
	return s.settings(), nil
}

// checkAll refuses a key with rooms: what is read is not of rooms.
func checkAll(c *call, _ *readRequest) *problem { return c.key.addressesAll("figures of the server") }
