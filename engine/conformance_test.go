package engine_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/conformance"
)

// echoServer is what `parley echo` is.
func echoServer(t *testing.T, sends string, compression, takeover bool) string {
	t.Helper()
	cfg := engine.DefaultConfig()
	cfg.Sends = sends
	cfg.Port, cfg.Loops, cfg.Bare, cfg.Compression = -1, 2, true, compression
	cfg.CompressionContextTakeover = takeover
	cfg.MessageBytesMax, cfg.MessageFragmentsMax = 32<<20, 1<<20
	cfg.BacklogSoftBytes, cfg.BacklogHardBytes = 64<<20, 256<<20
	s, err := engine.New(cfg, engine.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	s.OnRaw(func(_ *engine.Conn, payload []byte, _ bool) []byte { return payload })
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.Config().ShutdownTimeout)
		defer cancel()
		s.Shutdown(ctx)
	})
	return s.Addr().String()
}

// Every case of the public suite, over a socket, whole. A connection is failed with the code that says how
// the peer broke the protocol [RFC 6455 §7.1.7].
func TestConformance(t *testing.T) {
	for _, sends := range []string{"auto", "plain"} {
		conformance.Run(t, conformance.Options{Addr: echoServer(t, sends, false, false), Short: testing.Short()})
	}
}

// The same, each byte in a write of its own.
func TestConformanceByteByByte(t *testing.T) {
	conformance.Run(t, conformance.Options{Addr: echoServer(t, "auto", false, false), Chunk: 1, Short: true})
}

// Every case once more with compression, those of RFC 7692 among them.
func TestConformanceCompressed(t *testing.T) {
	conformance.Run(t, conformance.Options{Addr: echoServer(t, "plain", true, false), Compression: true, Short: testing.Short()})
}

// The compressed ones byte by byte.
func TestConformanceCompressedByteByByte(t *testing.T) {
	conformance.Run(t, conformance.Options{Addr: echoServer(t, "auto", true, false), Compression: true, Chunk: 1, Short: true})
}

// Both sides keep their contexts between messages.
func TestConformanceContextTakeover(t *testing.T) {
	conformance.Run(t, conformance.Options{Addr: echoServer(t, "auto", true, true), Compression: true, Short: testing.Short()})
}
