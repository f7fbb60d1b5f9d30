package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHealthcheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck [URL]",
		Short: "Ask a running server whether it works; the exit code is the answer",
		Long: "Ask a running server's admin listener whether every event loop takes its turns, for containers and monitors.\n" +
			"The address follows from the same settings that serve reads, or is URL. Exit code 0: the server is well.\n" +
			"1: it is not, or does not answer.",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{fmt.Errorf("healthcheck takes one URL, not %d", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			target, err := adminURL(cmd, args, "/healthz")
			if err != nil {
				return err
			}
			answer, err := askHealth(cmd, target)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), answer)
			return err
		},
	}
	addFlags(cmd)
	return cmd
}

// adminURL is the address to ask: the argument, or the admin listener of the settings.
func adminURL(cmd *cobra.Command, args []string, path string) (string, error) {
	if len(args) == 0 {
		s, _, err := load(cmd)
		if err != nil {
			return "", err
		}
		if s.AdminPort == 0 {
			return "", usageError{errors.New("admin_port is 0, so the server has no admin listener to ask; give it a port, or name a URL")}
		}
		return "http://" + net.JoinHostPort(reachable(s.AdminHost), strconv.Itoa(s.AdminPort)) + path, nil
	}
	u, err := url.Parse(args[0])
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", usageError{fmt.Errorf("%q is not the address of an admin listener; write http://host:port", args[0])}
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = path
	}
	return u.String(), nil
}

// reachable is an address for connecting to a listener on host.
func reachable(host string) string {
	a, err := netip.ParseAddr(host)
	switch {
	case err != nil || !a.IsUnspecified():
		return host
	case a.Is4():
		return "127.0.0.1"
	}
	return "::1"
}

const (
	healthWait     = 5 * time.Second // the server itself waits 2 s for its loops
	healthBytesMax = 4 << 10
)

// askHealth returns the answer of a healthy server, and an error for any other.
func askHealth(cmd *cobra.Command, target string) (string, error) {
	request, err := http.NewRequestWithContext(cmd.Context(), http.MethodGet, target, nil)
	if err != nil {
		return "", usageError{err}
	}
	client := &http.Client{Timeout: healthWait, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", fmt.Errorf("ask for health: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, healthBytesMax))
	if err != nil {
		return "", fmt.Errorf("read health: %w", err)
	}
	answer := strings.TrimSpace(string(body))
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s answers %s: %s", target, response.Status, answer)
	}
	return answer, nil
}
