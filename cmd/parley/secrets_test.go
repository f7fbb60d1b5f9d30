package main

import (
	"os"
	"strings"
	"testing"
)

// The password of the bus stands neither in what check-config says nor in the environment of the workers.
func TestPasswordIsHidden(t *testing.T) {
	file := write(t, "processes: 2\nbus_url: nats://user:secret@127.0.0.1:4222\n")
	if code, out, stderr := parley(t, "check-config", file); code != exitOK || strings.Contains(out+stderr, "secret") || !strings.Contains(out, "nats://xxxxx@127.0.0.1:4222") {
		t.Error(code, out, stderr)
	}
	for _, password := range []string{"/secret", "?secret", "#secret", "12/secret", "s%zecret", "a,secret"} {
		if code, out, stderr := parley(t, "check-config", "--processes=2", "--bus-url=nats://user:"+password+"@127.0.0.1"); code != exitUsage || strings.Contains(out+stderr, "ecret") || !strings.Contains(stderr, "--bus-url: bus_url: it is no URL") {
			t.Error(code, out, stderr)
		}
	}
	t.Setenv(settledVariable, "")
	const variable = envPrefix + "BUS_URL"
	t.Setenv(variable, "nats://other:secret@127.0.0.1:4222")
	t.Cleanup(func() { withheld = nil })
	s, _ := loaded(t, "--config", file)
	if err := handOn(s); err != nil || strings.Contains(os.Getenv(settledVariable), "secret") || !strings.Contains(s.BusURL, "secret") {
		t.Error(err, os.Getenv(settledVariable))
	}
	if _, there := os.LookupEnv(variable); there {
		t.Error("workers find the password in", variable)
	}
	t.Setenv(settledVariable, "")
	if again, sources := loaded(t, "--config", file); again.BusURL != s.BusURL || sources["bus_url"] != variable {
		t.Error("a reload reads", sources["bus_url"])
	}
}
