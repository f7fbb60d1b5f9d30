package reactor

import (
	"context"
	"net"
	"testing"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// What the reactor's choices cost [docs/decisions/reactor.md].

// BenchmarkWake measures the way from a goroutine to a loop and back: by the doorbell, and by gnet's own.
func BenchmarkWake(b *testing.B) {
	woken := make(chan bool)
	x := &trap{traffic: func(c gnet.Conn) gnet.Action {
		c.Discard(-1)
		woken <- true
		return gnet.None
	}}
	client := x.start(b, 1).client
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		b.Fatal(err)
	}
	c, err := client.EnrollContext(fileConn(b, pair[1]), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(pair[0])
	b.Run("doorbell", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			unix.Write(pair[0], ringByte[:])
			<-woken
		}
	})
	b.Run("Execute", func(b *testing.B) {
		task := gnet.RunnableFunc(func(context.Context) error { woken <- true; return nil })
		b.ReportAllocs()
		for b.Loop() {
			c.EventLoop().Execute(b.Context(), task)
			<-woken
		}
	})
	b.Run("Wake", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.Wake(nil)
			<-woken
		}
	})
}

// BenchmarkEnrol measures what putting an accepted connection on a loop costs beyond accepting it.
func BenchmarkEnrol(b *testing.B) {
	client := new(trap).start(b, 1).client
	bell, other := socketPair(b)
	defer other.Close()
	c, err := client.EnrollContext(bell, nil)
	if err != nil {
		b.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	accept := func(b *testing.B) (net.Conn, net.Conn) {
		theirs, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		ours, err := listener.Accept()
		if err != nil {
			b.Fatal(err)
		}
		return ours, theirs
	}
	b.Run("accept alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ours, theirs := accept(b)
			ours.Close()
			theirs.Close()
		}
	})
	b.Run("one at a time", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ours, theirs := accept(b)
			result, err := c.EventLoop().Enroll(b.Context(), ours)
			if err != nil {
				b.Fatal(err)
			}
			<-result
			theirs.Close()
		}
	})
	b.Run("64 in flight", func(b *testing.B) {
		flying := make(chan (<-chan gnet.RegisteredResult), 64)
		done := make(chan bool)
		go func() {
			for result := range flying {
				<-result
			}
			close(done)
		}()
		b.ReportAllocs()
		for b.Loop() {
			ours, theirs := accept(b)
			result, err := c.EventLoop().Enroll(b.Context(), ours)
			if err != nil {
				b.Fatal(err)
			}
			flying <- result
			theirs.Close()
		}
		close(flying)
		<-done
	})
}
