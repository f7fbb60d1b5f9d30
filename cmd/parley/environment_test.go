package main

import (
	"strings"
	"testing"
)

// Variables of Kubernetes and Docker for services called parley, parley-ws and parley-admin, and variables of other programs
// with our prefix, end no command.
var others = map[string]string{
	"PARLEY_SERVICE_HOST": "10.0.0.1", "PARLEY_SERVICE_PORT": "9090", "PARLEY_SERVICE_PORT_WS": "9090", "PARLEY_SERVICE_PORT_HTTP_ALT": "1",
	"PARLEY_PORT": "tcp://10.0.0.1:9090", "PARLEY_PORT_9090_TCP": "tcp://10.0.0.1:9090", "PARLEY_PORT_9090_TCP_ADDR": "10.0.0.1",
	"PARLEY_PORT_9090_TCP_PORT": "9090", "PARLEY_PORT_9090_TCP_PROTO": "tcp", "PARLEY_PORT_53_UDP_ADDR": "10.0.0.1",
	"PARLEY_WS_SERVICE_HOST": "10.0.0.2", "PARLEY_WS_SERVICE_PORT": "80", "PARLEY_WS_PORT": "tcp://10.0.0.2:80", "PARLEY_WS_PORT_80_TCP": "tcp://10.0.0.2:80",
	"PARLEY_WS_PORT_80_TCP_PROTO": "tcp", "PARLEY_ADMIN_PORT": "tcp://10.0.0.3:9091", "PARLEY_ADMIN_SERVICE_HOST": "10.0.0.3",
	"PARLEY_ADMIN_PORT_9091_TCP_ADDR": "10.0.0.3", "PARLEY_PORTS_PORT": "udp://10.0.0.1:1",
	"PARLEY_TAG": "1.2", "PARLEY_IMAGE": "parley:1.2", "PARLEY_NAME": "/web/parley", "PARLEY_ENV_TZ": "UTC", "PARLEY_HOME": "/srv",
	"PARLEY_VERSION": "3", "PARLEY_REPLICAS": "2", "PARLEY_DOMAIN": "example.com", "PARLEY_PASSWORD": "secret",
}

func TestOthersVariables(t *testing.T) {
	for name, text := range others {
		t.Setenv(name, text)
	}
	t.Setenv("PARLEY_LOG_LEVEL", "error")
	code, out, stderr := parley(t, "check-config")
	if code != exitOK || !strings.Contains(out, "PARLEY_LOG_LEVEL") || !strings.Contains(strings.Join(strings.Fields(out), " "), "port: 9090 # default") {
		t.Fatal(code, out, stderr)
	}
	for _, want := range []string{"PARLEY_PORT is ignored", "enableServiceLinks", "PARLEY_ADMIN_PORT is ignored", "PARLEY_TAG is ignored", "PARLEY_IMAGE is ignored: it names no setting"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("%q does not say %q", stderr, want)
		}
	}
	if strings.Contains(stderr, "SERVICE") || strings.Contains(stderr, "_TCP") || strings.Contains(stderr, "secret") {
		t.Errorf("too many warnings: %s", stderr)
	}
	if code, _, stderr := parley(t, "serve", "--port", "0", "--admin-port", "0"); code != exitOK || stderr != "" {
		t.Error(code, stderr)
	}
	if code, _, stderr := parley(t, "healthcheck", "http://127.0.0.1:1"); code != exitFailed {
		t.Error(code, stderr)
	}
}

// A setting that was mistyped is still a mistake.
func TestMistypedVariables(t *testing.T) {
	for name, key := range map[string]string{
		"PARLEY_HEARTBEAT_INTERVALL": "heartbeat_interval", "PARLEY_ORIGIN": "origins", "PARLEY_PROT": "port", "PARLEY_HSOT": "host",
		"PARLEY_LOGLEVEL": "log_level", "PARLEY_MAX_CONNECTION": "max_connections", "PARLEY_ADMINPORT": "admin_port", "PARLEY_DATADIR": "data_dir",
		"PARLEY_TRUSTED_PROXY": "trusted_proxies", "PARLEY_CONFIGS": "config", "PARLEY_PROCESS": "processes", "PARLEY_BUSURL": "bus_url", "PARLEY_APIKEY": "api_key",
	} {
		_, notes, mistakes := fromEnvironment([]string{name + "=1"})
		if len(mistakes) != 1 || len(notes) != 0 || !strings.Contains(mistakes[0].Error(), name+" names no setting; did you mean \""+key+"\"?") {
			t.Errorf("%s: %v %v", name, mistakes, notes)
		}
	}
	values, notes, mistakes := fromEnvironment([]string{"PARLEY_PORT=9999", "PARLEY_ADMIN_PORT=tcp:1", "HOME=/x", "PARLEY_CONFIG=x"})
	if len(values) != 2 || len(notes)+len(mistakes) != 0 {
		t.Error(values, notes, mistakes)
	}
}
