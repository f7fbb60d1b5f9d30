package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// The URL of the bus may hold a user and a password. A command line is seen by every user of the machine, so no flag takes
// them; the file of bus_url_file, the configuration file and the variable do. Children get them by the control channel
// (package cluster's welcome), and never through their arguments or their environment.

// busURLBytesMax bounds the file: a URL for each server of a large cluster.
const busURLBytesMax = 16 << 10

// gatherBusURL takes the URL from its file, if there is one, and refuses a user, a password or a token in the flag, which given
// may be.
func (s *settings) gatherBusURL(given value, sources map[string]string) (mistakes []error) {
	if strings.HasPrefix(given.where, "--") && strings.Contains(given.text, "@") {
		mistakes = append(mistakes, fmt.Errorf("%s: bus_url: every user of this machine can see a password on a command line; write the URL into a file and name it in bus_url_file, "+
			"or set %sBUS_URL, or write the login into the file of bus_credentials", given.where, envPrefix))
	}
	if err := s.readBusURL(sources); err != nil {
		mistakes = append(mistakes, err)
	}
	return mistakes
}

// readBusURL takes the URL of the bus from the file of bus_url_file.
func (s *settings) readBusURL(sources map[string]string) error {
	if s.BusURLFile == "" {
		return nil
	}
	wrong := func(err error) error { return fmt.Errorf("%s: bus_url_file: %w", sources["bus_url_file"], err) }
	if s.BusURL != "" {
		return wrong(fmt.Errorf("bus_url is set, too (%s); leave one of the two out", sources["bus_url"]))
	}
	file, err := os.Open(s.BusURLFile)
	if err != nil {
		return wrong(err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, busURLBytesMax))
	if err != nil {
		return wrong(err)
	}
	switch s.BusURL = strings.TrimSpace(string(text)); {
	case s.BusURL == "":
		return wrong(errors.New(s.BusURLFile + " is empty; write the URL into it: nats://user:password@host:4222"))
	case strings.ContainsAny(s.BusURL, "\r\n"):
		return wrong(errors.New(s.BusURLFile + " has several lines; write one, with commas between URLs"))
	}
	sources["bus_url"] = s.BusURLFile
	return nil
}
