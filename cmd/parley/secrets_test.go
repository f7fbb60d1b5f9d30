package main

import (
	"os"
	"strings"
	"testing"
)

// A password in a wrong place of the settings is not in the error.
func TestMistakesHideUsers(t *testing.T) {
	const url = "nats://user:/s@crét@127.0.0.1:4222"
	for _, args := range [][]string{
		{"serve", url}, {url}, {"check-config", "--bus-url=" + url, "x", "y"}, {"check-config", "--data-dir", url}, {"check-config", "--port", url}, {"check-config", "--host", url},
		{"check-config", "--origins", url}, {"check-config", "--trusted-proxies", url}, {"check-config", "--subprotocols", url}, {"serve", "--" + url}, {"check-config", "--log-level", url},
		{"check-config", write(t, "\""+url+"\": 3\n")}, {"check-config", write(t, "bus_url: ['\""+url+"\"']\n")}, {"check-config", write(t, "origins: ['\""+url+"\"']\n")},
		{"check-config", "--processes=2", "--bus-url=nats://h", "--bus-credentials=user:s@crét"}, {"check-config", "--processes=2", "--bus-url=nats://h", "--bus-credentials=crét"},
		{"check-config", "--processes=2", "--bus-url=nats://h", "--bus-credentials=" + url}, {"healthcheck", url}, {"status", url},
	} {
		if code, out, stderr := parley(t, args...); code == exitOK || strings.Contains(out+stderr, "crét") || strings.Contains(out+stderr, `cr\u`) {
			t.Errorf("%q: %d %s%s", args, code, out, stderr)
		}
	}
}

// check-config refuses a file of credentials that serve refuses.
func TestCredentialsAreRead(t *testing.T) {
	given := []string{"check-config", "--processes=2", "--bus-url=nats://h", "--bus-credentials"}
	for _, path := range []string{"/nowhere/bus", t.TempDir(), write(t, " \n")} {
		if code, _, stderr := parley(t, append(given, path)...); code != exitUsage || !strings.Contains(stderr, "--bus-credentials: bus_credentials: ") || !strings.Contains(stderr, path) {
			t.Error(code, stderr)
		}
	}
	if code, _, stderr := parley(t, append(given, write(t, "user:password"))...); code != exitOK {
		t.Error(code, stderr)
	}
}

// The password of the bus is neither in the output of check-config nor in the environment of the workers.
func TestPasswordIsHidden(t *testing.T) {
	file := write(t, "processes: 2\nbus_url: nats://user:secret@127.0.0.1:4222\n")
	if code, out, stderr := parley(t, "check-config", file); code != exitOK || strings.Contains(out+stderr, ":secret") || !strings.Contains(out, "nats://xxxxx@127.0.0.1:4222") {
		t.Error(code, out, stderr)
	}
	for _, password := range []string{"/secret", "?secret", "#secret", "12/secret", "s%zecret", "a,secret"} {
		url := "nats://user:" + password + "@127.0.0.1"
		if code, out, stderr := parley(t, "check-config", "--processes=2", "--bus-url-file", write(t, url)); code != exitUsage || strings.Contains(out+stderr, "ecret") || !strings.Contains(stderr, ": bus_url: it is no URL") {
			t.Error(code, out, stderr)
		}
		if code, out, stderr := parley(t, "check-config", "--processes=2", "--bus-url="+url); code != exitUsage || strings.Contains(out+stderr, "ecret") || !strings.Contains(stderr, "--bus-url: bus_url: every user of this machine can see") {
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

// The URL of the bus comes from its file, whose faults are said without its text.
func TestBusURLFile(t *testing.T) {
	url := "nats://user:secret@127.0.0.1:4222"
	if s, sources := loaded(t, "--processes=2", "--bus-url-file", write(t, url+"\r\n")); s.BusURL != url || !strings.HasSuffix(sources["bus_url"], "parley.yaml") {
		t.Error(s.BusURL, sources["bus_url"])
	}
	for fault, args := range map[string][]string{
		"leave one of the two out": {"--bus-url=nats://127.0.0.1", "--bus-url-file", write(t, url)},
		"is empty":                 {"--bus-url-file", write(t, " \n")},
		"has several lines":        {"--bus-url-file", write(t, url+"\n"+url)},
		"no such file":             {"--bus-url-file", "/nowhere/bus"},
		"is a directory":           {"--bus-url-file", t.TempDir()},
		"does not begin with nats": {"--bus-url-file", write(t, "http://user:secret@h")},
		"needs no bus":             {"--processes=1", "--bus-url-file", write(t, url)},
	} {
		code, out, stderr := parley(t, append([]string{"check-config", "--processes=2"}, args...)...)
		if code != exitUsage || strings.Contains(out+stderr, "secret") || !strings.Contains(stderr, fault) {
			t.Errorf("%s: %d %s%s", fault, code, out, stderr)
		}
	}
}
