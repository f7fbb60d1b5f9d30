//go:build !linux

package reactor

import (
	"errors"

	"github.com/parleyd/parley/engine/internal/turn"
)

// ring is Linux's. Here there is none.
type uring struct{}

func openUring() (*uring, error) { return nil, errors.New("io_uring is a part of Linux") }

func (*uring) send([]turn.Send) (taken int, err error) { return 0, nil }

func (*uring) close() {}
