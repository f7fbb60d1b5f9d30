package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// objects wants every line to be a JSON object, and returns them by their message, the latest of each.
func objects(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	found := map[string]map[string]any{}
	for line := range strings.Lines(text) {
		var o map[string]any
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Errorf("a line is no JSON: %s", line)
			continue
		}
		found[fmt.Sprint(o["msg"])] = o
	}
	return found
}

// If the log is JSON, all output of a server is, the ready line and the error that ends it included. Durations have their
// units. One process as well as several logs the start with its settings, the cause of the stop, and its duration.
func TestJSONLog(t *testing.T) {
	for _, processes := range []int{1, 2} {
		t.Run(fmt.Sprint("processes ", processes), func(t *testing.T) {
			t.Parallel()
			_, admin := freeAddress(t)
			in, both, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			r := command(t, outputs{both, both}, os.Args[0], "serve", "--port", "0", "--admin-port", admin, "--loops", "1", "--processes",
				fmt.Sprint(processes), "--log-format", "json", "--heartbeat-interval", "17s")
			both.Close()
			var text strings.Builder
			for lines := bufio.NewScanner(in); lines.Scan(); {
				fmt.Fprintln(&text, lines.Text())
				if strings.Contains(lines.Text(), `"msg":"ready"`) {
					r.signal(syscall.SIGTERM)
				}
			}
			r.code()
			said := objects(t, text.String())
			start, ready, stop := said["starting"], said["ready"], said["stopping"]
			settings, _ := start["settings"].(map[string]any)
			if start["version"] == "" || start["pid"] != float64(r.cmd.Process.Pid) || settings["heartbeat_interval"] == nil || settings["host"] != nil {
				t.Errorf("the start is told as %v", start)
			}
			if url, _ := ready["url"].(string); !strings.HasPrefix(url, "ws://127.0.0.1:") || ready["admin_url"] != "http://127.0.0.1:"+admin+"/" {
				t.Errorf("ready is told as %v", ready)
			}
			if within, _ := stop["within"].(string); !strings.HasSuffix(within, "s") || stop["why"] == "" {
				t.Errorf("stopping is told as %v", stop)
			}
			if after, _ := said["stopped"]["after"].(string); !strings.HasSuffix(after, "s") {
				t.Errorf("the end is told as %v", said["stopped"])
			}
		})
	}
}

// A server that cannot start logs the error as an object, and ends with the same code as with a text log.
func TestJSONFailure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, taken, _ := net.SplitHostPort(l.Addr().String())
	cmd := exec.CommandContext(t.Context(), os.Args[0], "serve", "--port", taken, "--admin-port", "0", "--log-format", "json")
	cmd.Env = append(os.Environ(), mainVariable+"=1")
	out, _ := cmd.CombinedOutput()
	ended := objects(t, string(out))["the server has ended"]
	if why, _ := ended["err"].(string); cmd.ProcessState.ExitCode() != exitFailed || ended["level"] != "ERROR" || !strings.Contains(why, taken) {
		t.Errorf("code %d: %s", cmd.ProcessState.ExitCode(), out)
	}
}

// A start names no secret.
func TestStartNamesNoSecret(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "serve", "--port", "0", "--admin-port", "0", "--processes", "2", "--bus-url-file",
		write(t, "nats://ann:swordfish@127.0.0.1:1"), "--log-format", "json")
	cmd.Env = append(os.Environ(), mainVariable+"=1")
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(pipe).ReadString('\n')
	cmd.Process.Kill()
	cmd.Wait()
	if err != nil || !strings.Contains(line, `"bus_url":"nats://`) || strings.Contains(line, "fish") || strings.Contains(line, "sword") {
		t.Errorf("it says %s (%v)", line, err)
	}
}
