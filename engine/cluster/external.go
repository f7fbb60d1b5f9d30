package cluster

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/cluster/bus"
)

// messageSlack is how many bytes an entry on the bus has besides a client's message, at most.
const messageSlack = 64 << 10

// takeAccount takes the account of bus_url for this server alone, before any process is started. It waits for a NATS
// server that cannot be reached, as workers do.
func takeAccount(ctx context.Context, cfg engine.Config, o Options) (*bus.Account, error) {
	o.Log.Info("the bus is an external NATS server", "bus_url", bus.RedactURL(cfg.BusURL))
	bounded, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	account, err := bus.TakeAccount(bounded, bus.Address{URL: cfg.BusURL, Credentials: cfg.BusCredentials}, max(cfg.MessageBytesMax+messageSlack, ledgerBytes))
	switch {
	case errors.Is(err, bus.ErrAccountTaken), errors.Is(err, bus.ErrNoJetStream), errors.Is(err, bus.ErrTooSmall), errors.Is(err, nats.ErrAuthorization):
		return nil, &engine.ConfigError{Key: "bus_url", Hint: err.Error()}
	case errors.Is(err, bus.ErrCredentials):
		return nil, &engine.ConfigError{Key: "bus_credentials", Hint: err.Error()}
	case err != nil:
		return nil, err
	}
	return account, nil
}

// ledgerBytes bounds a record of the ledger.
const ledgerBytes = 600 << 10
