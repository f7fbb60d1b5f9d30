package ledger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/protocol/ident"
)

// The checker: a page of memory that all workers map. Each room has a word, in which each worker has sixteen bits that
// count its used seats. One atomic add changes them and returns those of all workers, so a worker that takes a seat too
// many detects it at that instant, and a kill in between leaves no half-made change.
const (
	lanes     = 4
	killRooms = 6
	tightMax  = 40 // rooms up to this limit are nearly always full
)

// killLimits differ, so that some rooms are nearly always full and others use blocks.
var killLimits = [killRooms]int{1, 3, 10, 40, 150, 1000}

type page struct{ words *[512]atomic.Uint64 }

const (
	violations = 100 // index of the word that counts them
	grants     = 101 // in the tight rooms
	refusals   = 102
	aways      = 103
	handed     = 104 // seats that were given and taken
	residents  = 200 // from here on: the instance in each lane
)

func mapPage(path string) (page, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return page{}, err
	}
	defer func() { _ = f.Close() }()
	b, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		return page{}, err
	}
	return page{(*[512]atomic.Uint64)(unsafe.Pointer(&b[0]))}, nil
}

func sumOf(word uint64) (sum int) {
	for i := range lanes {
		sum += int(word >> (16 * i) & 0xffff)
	}
	return sum
}

func (p page) take(room, lane, n int) {
	if killLimits[room] <= tightMax {
		p.words[grants].Add(uint64(n))
	}
	if sumOf(p.words[room].Add(uint64(n)<<(16*lane))) > killLimits[room] {
		p.words[violations].Add(1)
	}
}

func (p page) give(room, lane, n int) { p.words[room].Add(-(uint64(n) << (16 * lane))) }

// bury clears a lane, once its worker is gone and before its seats are reaped.
func (p page) bury(lane int) {
	for room := range killRooms {
		p.words[room].And(^(uint64(0xffff) << (16 * lane)))
	}
}

// playSeats is a worker process that joins and leaves at random until it is killed.
func playSeats(args string) {
	var url, path string
	var instance ident.Worker
	var lane int
	if _, err := fmt.Sscan(args, &url, &path, &instance, &lane); err != nil {
		panic(err)
	}
	p, err := mapPage(path)
	if err != nil {
		panic(err)
	}
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1),
		nats.RetryOnFailedConnect(true), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	l, err := Open(ctx, nc, Options{Instance: instance, Epoch: testEpoch, Fault: func(err error) { panic(err) }})
	cancel()
	if err != nil {
		panic(err)
	}
	d := &dealer{l: l, p: p, nc: nc, lane: lane}
	if _, err := nc.Subscribe(giftSubject(instance), d.take); err != nil {
		panic(err)
	}
	p.words[residents+lane].Store(uint64(instance))
	for room := range killRooms {
		go d.joinAndLeave(room)
	}
	fmt.Println("ready")
	untilStdinEnds()
}

// dealer takes and releases seats of all rooms for one worker.
type dealer struct {
	l    *Ledger
	p    page
	nc   *nats.Conn
	lane int
}

// passShare of the times that a worker lets seats go, it gives one away: take-overs are rarer than joins, however slow
// the machine is.
const passShare = 150

func giftSubject(instance ident.Worker) string { return fmt.Sprint("test.gift.", instance) }

// pass gives a seat to another worker and tells it so. The seat is not used until that worker takes it.
func (d *dealer) pass(room int, rng *rand.Rand) {
	to := ident.Worker(d.p.words[residents+(d.lane+1+rng.IntN(lanes-1))%lanes].Load())
	var ticket Ticket
	for i := range ticket {
		ticket[i] = byte(rng.Uint32()) | 1
	}
	d.p.give(room, d.lane, 1)
	name := fmt.Sprint("room ", room)
	err := d.l.Seats.Give(name, to, ticket, func(err error) {
		if err == nil {
			_ = d.nc.Publish(giftSubject(to), append([]byte{byte(room)}, ticket[:]...)) // or it is recalled
		}
	})
	if err != nil {
		panic(err)
	}
}

// take takes a given seat, and releases it a little later.
func (d *dealer) take(m *nats.Msg) {
	room := int(m.Data[0])
	name := fmt.Sprint("room ", room)
	err := d.l.Seats.Take(name, killLimits[room], Ticket(m.Data[1:]), func(err error) {
		if err != nil {
			return
		}
		d.p.take(room, d.lane, 1)
		d.p.words[handed].Add(1)
		go func() {
			d.p.give(room, d.lane, 1)
			d.l.Seats.Release(name, 1)
		}()
	})
	if err != nil {
		panic(err)
	}
}

// joinAndLeave keeps up to sixteen calls pending and uses the granted seats for a while. It gives some to others.
func (d *dealer) joinAndLeave(room int) {
	l, p, lane := d.l, d.p, d.lane
	name := fmt.Sprint("room ", room)
	rng := rand.New(rand.NewPCG(uint64(lane), uint64(room)))
	told := make(chan int, 16)
	used, calls := 0, 0
	for {
		for calls < cap(told) {
			n := 1 + rng.IntN(3)
			err := l.Seats.Acquire(name, killLimits[room], n, func(granted int, err error) {
				p.take(room, lane, granted)
				switch err {
				case nil:
				case ErrFull:
					p.words[refusals].Add(1)
				case ErrAway:
					p.words[aways].Add(1)
				default:
					panic(err)
				}
				told <- granted
			})
			if err != nil {
				panic(err)
			}
			calls++
		}
		used += <-told
		calls--
		if used > 0 && rng.IntN(3) > 0 {
			n := 1 + rng.IntN(used)
			if rng.IntN(passShare) == 0 {
				d.pass(room, rng)
				used--
				continue
			}
			p.give(room, lane, n)
			l.Seats.Release(name, n)
			used -= n
		}
	}
}

func TestPageSeesASeatTooMany(t *testing.T) {
	p := page{new([512]atomic.Uint64)}
	p.take(1, 0, 2)
	p.take(1, 3, 1)
	if p.words[violations].Load() != 0 {
		t.Error("three of three seats are none too many")
	}
	p.give(1, 0, 1)
	p.take(1, 2, 2)
	if p.words[violations].Load() != 1 {
		t.Error("four of three seats went unnoticed")
	}
}

// Four workers take and release seats as fast as they can; workers are killed, and the bus is; at no instant are
// more seats in use than the limit allows, and in the end all of them can be had.
func TestSeatsUnderKills(t *testing.T) {
	t.Parallel()
	b := startBus(t)
	path := filepath.Join(t.TempDir(), "page")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := mapPage(path)
	if err != nil {
		t.Fatal(err)
	}
	watcher := b.open(t, 1000) // who reaps, as a worker that lives would
	instance := 0
	var workers [lanes]*process
	start := func(lane int) {
		instance++
		workers[lane] = play(t, fmt.Sprintf("seats %s %s %d %d", b.url(), path, instance, lane))
	}
	var instances [lanes]int
	for lane := range lanes {
		start(lane)
		instances[lane] = instance
	}
	reap := func(lane int) {
		workers[lane].kill()
		p.bury(lane)
		for range 2 {
			must(t, func(done func(error)) error { return watcher.Seats.Reap(ident.Worker(instances[lane]), done) })
		}
		must(t, func(done func(error)) error { return watcher.Dead(ident.Worker(instances[lane]), time.Time{}, done) })
	}
	for round := range some(12, 6) {
		before := p.words[grants].Load()
		eventually(t, "workers go on", func() bool { return p.words[grants].Load() > before+2000 })
		if round%3 == 2 {
			b.restart()
			continue
		}
		lane := round % lanes
		reap(lane)
		start(lane)
		instances[lane] = instance
	}
	for lane := range lanes {
		reap(lane)
	}
	t.Logf("%d seats of tight rooms granted, %d calls refused, %d away, %d seats handed on", p.words[grants].Load(),
		p.words[refusals].Load(), p.words[aways].Load(), p.words[handed].Load())
	if n := p.words[violations].Load(); n > 0 {
		t.Errorf("%d times more seats were in use than the limit allows", n)
	}
	if p.words[refusals].Load() == 0 || p.words[handed].Load() == 0 {
		t.Error("nobody was ever refused, or nothing handed on: the rooms were never full")
	}
	for room, limit := range killLimits {
		grant(t, watcher, fmt.Sprint("room ", room), limit, limit)
	}
}
