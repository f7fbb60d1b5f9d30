package bus

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
)

const (
	loopback = "127.0.0.1"
	// portMin avoids the well-known ports of other services.
	portMin = 10000
	portMax = 65535
)

// ephemeralPorts is the range from which the kernel takes ports for dials, or IANA's if the kernel does not tell. A
// server with a port in this range may find it taken by some connection after a restart.
func ephemeralPorts() (low, high int) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if n, _ := fmt.Sscan(string(text), &low, &high); n == 2 {
			return low, high
		}
	}
	return 49152, portMax
}

// choosePort finds a free port outside the ephemeral range. Another process may take it before we do.
func choosePort() (int, error) {
	low, high := ephemeralPorts()
	below, above := max(low-portMin, 0), max(portMax-high, 0)
	if below+above == 0 {
		return 0, fmt.Errorf("choose port: all ports from %d on are ephemeral (%d to %d): name a port for the bus", portMin, low, high)
	}
	var err error
	for range 64 {
		port := rand.IntN(below + above)
		if port < below {
			port += portMin
		} else {
			port += high + 1 - below
		}
		var l net.Listener
		if l, err = net.Listen("tcp4", net.JoinHostPort(loopback, strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("choose port: %w", err)
}
