//go:build linux

package load

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"
)

// Order is a message of the coordinator to a part: the first has the time to begin, the second the messages that every
// member must get.
type Order struct {
	Begin int64      `json:"begin,omitempty"` // nanoseconds of the machine's monotonic clock
	Owed  [][]uint64 `json:"owed,omitempty"`  // messages, by room and publisher, from all parts
}

// Report is a message of a part to the coordinator: the first is ready, the second has the messages that its clients have
// sent, the third the result.
//
// Owner: the receiver.
type Report struct {
	Ready   bool             `json:"ready,omitempty"`
	Workers map[uint16]int   `json:"workers,omitempty"` // connections on each
	Sent    [][]uint64       `json:"sent,omitempty"`    // by room and publisher
	Result  *Result          `json:"result,omitempty"`
	Local   string           `json:"local,omitempty"` // histograms, encoded
	Away    string           `json:"away,omitempty"`
	Reached map[uint64]Reach `json:"reached,omitempty"` // by round
}

// Reach is the progress of the messages of a round.
type Reach struct {
	Arrived uint64 `json:"arrived"` // deliveries
	Last    int64  `json:"last"`    // nanoseconds from the planned time to the last of them
}

// RunPart plays one of several processes that load a server together, in rooms whose members are spread over all of them.
// Each part checks that its own members get the messages of every publisher of every part, in order and once. In the end
// the coordinator tells how many that must be.
//
// RunPart calls report three times, and awaits an order between the calls.
func RunPart(p Plan, orders <-chan Order, report func(Report) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	g, err := newGenerator(p)
	if err != nil {
		return err
	}
	defer unix.Close(g.epoll)
	s := newSpread(p)
	g.scenario, g.result.histogram = s, nil
	defer g.closeAll()
	last := Report{Result: &g.result}
	if err := s.play(g, orders, report); err != nil {
		g.result.Void = err.Error()
	}
	g.result.Messages = g.deliveries
	last.Local, last.Away, last.Reached = encoded(s.local), encoded(s.away), s.reached
	return report(last)
}

func encoded(h *hdrhistogram.Histogram) string {
	text, _ := h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	return string(text)
}

func (s *spread) play(g *generator, orders <-chan Order, report func(Report) error) error {
	if err := g.connectAll(); err != nil {
		return err
	}
	if err := s.begin(g); err != nil {
		return err
	}
	workers := map[uint16]int{}
	for _, c := range g.conns {
		workers[c.worker]++
	}
	if err := report(Report{Ready: true, Workers: workers}); err != nil {
		return err
	}
	order, err := g.await(orders)
	if err != nil {
		return err
	}
	s.start(g, order.Begin)
	begun := time.Now()
	g.spin(time.Duration(s.until - s.clock(begun)))
	took := time.Since(begun)
	g.result.Seconds, g.result.Busy = g.plan.Measure.Seconds(), g.busy.Seconds()/took.Seconds()
	g.result.ClientCPU = g.busy.Seconds() * 1e6 / float64(max(1, s.total)) // per delivery, the warm-up's included
	s.until = 0
	if g.failed != nil {
		return g.failed
	}
	if err := report(Report{Sent: s.sent()}); err != nil {
		return err
	}
	if order, err = g.await(orders); err != nil {
		return err
	}
	if err := s.settle(g, order.Owed); err != nil {
		return err
	}
	if !g.plan.Sleepy && g.result.Busy > busyMax {
		return fmt.Errorf("the load generator was busy for %.0f %% of the time: it measured itself", g.result.Busy*100)
	}
	return nil
}

// await goes on serving clients until there is an order.
func (g *generator) await(orders <-chan Order) (Order, error) {
	for g.failed == nil {
		select {
		case o, ok := <-orders:
			if !ok {
				return o, errors.New("the coordinator has gone")
			}
			return o, nil
		default:
			g.turn()
		}
	}
	return Order{}, g.failed
}

const (
	napMilliseconds = 2
	settleFor       = 5 * time.Second // besides the plan's Measure
	settleLook      = 10 * time.Millisecond
)

// poll asks for events. A sleepy generator waits up to napMilliseconds for them.
func (g *generator) poll() (int, error) {
	if g.plan.Sleepy {
		return unix.EpollWait(g.epoll, g.events, napMilliseconds)
	}
	return rawPoll(g.epoll, g.events)
}

// monotonic is the machine's monotonic clock, which all its processes share.
func monotonic() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return t.Nano()
}

// Monotonic is the clock of [Order].Begin.
func Monotonic() int64 { return monotonic() }
