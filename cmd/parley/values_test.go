package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// Values as env files, editors and templates write them are taken if they are unambiguous, and are a mistake otherwise.
func TestValuesAsWritten(t *testing.T) {
	for variable, c := range map[string]struct {
		text string
		want any
	}{
		"PARLEY_DATA_DIR": {"/data\r", "/data"}, "PARLEY_PORT": {" 9999\r\n", 9999}, "PARLEY_COMPRESSION": {"true\r", true}, "PARLEY_LOG_LEVEL": {"warn\r", "warn"},
		"PARLEY_HOST": {"[::1]", "::1"}, "PARLEY_ADMIN_HOST": {"[::1]\r", "::1"}, "PARLEY_BUS_URL": {"", ""}, "PARLEY_PROXY_HEADER": {" ", ""},
		"PARLEY_ORIGINS": {`["https://a.example","https://b.example"]`, []string{"https://a.example", "https://b.example"}}, "PARLEY_SUBPROTOCOLS": {"a, b,\r", []string{"a", "b"}},
		"PARLEY_TRUSTED_PROXIES": {"", []string(nil)},
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, c.text)
			s, _ := loaded(t)
			key, _ := findSetting(strings.ToLower(strings.TrimPrefix(variable, envPrefix)))
			if got := reflect.ValueOf(s).Elem().FieldByIndex(key.index).Interface(); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q is %#v", c.text, got)
			}
		})
	}
	for _, args := range [][]string{{"--data-dir="}, {"--bus-url="}, {"--config", write(t, "data_dir: \"\"\nbus_url:\nbus_credentials: ~\nhost: \"[::1]\"\nadmin_host: '[::1]'\n")}} {
		if s, _ := loaded(t, args...); s.DataDir != "" || s.BusURL != "" || strings.ContainsAny(s.Host+s.AdminHost, "[]") {
			t.Errorf("%v: %+v", args, s)
		}
	}
	for _, c := range [][]string{
		{`--data-dir="/data"`, "quotes"}, {"--data-dir='/data'", "quotes"}, {`--port="9090"`, "quotes"}, {`--origins="https://a.example"`, "quotes"}, {`--log-level='info'`, "quotes"},
		{`--heartbeat-interval="30"`, "quotes"}, {`--bus-url="nats://h"`, "quotes"}, {`--host="::1"`, "quotes"}, {`--subprotocols='a','b'`, "quotes"}, {`--compression="true"`, "quotes"},
		{"--data-dir=~/data", "only a shell"}, {"--data-dir=~", "only a shell"}, {"--data-dir=$HOME/data", "holds $"}, {"--data-dir=/a\tb", "control character"}, {"--host=", "empty"}, {"--log-level=", "none of"},
		{"--origins=[https://a.example", "no origin"}, {"--trusted-proxies=[10.0.0.1", "neither an address"}, {"--host=0.0.0.0:1", "a key of its own"},
	} {
		if code, _, stderr := parley(t, "check-config", c[0]); code != exitUsage || !strings.Contains(stderr, c[1]) {
			t.Errorf("%s: %d %s", c[0], code, stderr)
		}
	}
	for text, want := range map[string]string{"data_dir: '\"/data\"'\n": "quotes", "origins: [\"'https://a.example'\"]\n": "quotes", "data_dir: ~/x\n": "only a shell", "data_dir: \"/x\\r\\u0007\"\n": "control"} {
		if code, _, stderr := parley(t, "check-config", write(t, text)); code != exitUsage || !strings.Contains(stderr, want) || !strings.Contains(stderr, "parley.yaml:1") {
			t.Errorf("%q: %d %s", text, code, stderr)
		}
	}
}

// The output of check-config is a file with the same settings.
func TestCheckConfigIsAFile(t *testing.T) {
	rows := []string{"", "origins: ['*', 'null', 'https://a.example:8443']\nhost: '::1'\ndata_dir: '/var/lib/x # y: z'\nport: 0\nannounce_members_max: 0\nprocesses: 2\n"}
	for _, s := range table {
		text := s.key + ": " + yamlOf(s, everyKey[s.key].text) + "\n"
		for _, key := range needs[s.key] {
			other, _ := findSetting(key)
			text += key + ": " + yamlOf(other, everyKey[key].text) + "\n"
		}
		rows = append(rows, text)
	}
	for _, text := range rows {
		code, first, stderr := parley(t, "check-config", write(t, text))
		if code != exitOK {
			t.Fatalf("%s: %s", text, stderr)
		}
		code, second, stderr := parley(t, "check-config", write(t, first))
		values := func(out string) (list []string) {
			for line := range strings.Lines(out) {
				value, _, _ := strings.Cut(line, " # ")
				list = append(list, strings.TrimSpace(value))
			}
			return list
		}
		if code != exitOK || !slices.Equal(values(first), values(second)) {
			t.Errorf("%s becomes\n%s and then\n%s%s", text, first, second, stderr)
		}
	}
}
