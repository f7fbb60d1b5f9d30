package interop

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// deployed is a file of docs/deploy with the texts that differ by machine replaced; each must be there.
func deployed(t *testing.T, name string, changes ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	conf := string(text)
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(conf, changes[i]) {
			t.Fatalf("%s holds no %q", name, changes[i])
		}
		conf = strings.ReplaceAll(conf, changes[i], changes[i+1])
	}
	return conf
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// healthy reports whether a server answers 200 to /healthz.
func healthy(admin int) bool {
	response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/healthz", admin))
	if err != nil {
		return false
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode == http.StatusOK && string(body) == "ok\n"
}

// Under a real supervisord, the program of docs/deploy/supervisor.conf starts, starts again after kill -9, and stops on
// request.
func TestSupervisor(t *testing.T) {
	daemon, control := need(t, "supervisord"), need(t, "supervisorctl")
	dir, port, admin := t.TempDir(), freePort(t), freePort(t)
	writeFile(t, filepath.Join(dir, "parley.yaml"), fmt.Sprintf("port: %d\nadmin_port: %d\n", port, admin))
	program := deployed(t, "supervisor.conf", "/usr/local/bin/parley", binary, "/etc/parley.yaml", filepath.Join(dir, "parley.yaml"),
		"user=www-data", "", "/var/log/parley.log", filepath.Join(dir, "parley.log"))
	main := filepath.Join(dir, "supervisord.conf")
	writeFile(t, main, fmt.Sprintf("[supervisord]\nnodaemon=true\nlogfile=%[1]s/log\npidfile=%[1]s/pid\nchildlogdir=%[1]s\n"+
		"[unix_http_server]\nfile=%[1]s/s\n[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"+
		"[supervisorctl]\nserverurl=unix://%[1]s/s\n%[2]s", dir, program))
	cmd := exec.Command(daemon, "-c", main)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if log, _ := os.ReadFile(filepath.Join(dir, "log")); t.Failed() {
			t.Logf("supervisord says:\n%s", log)
			said, _ := os.ReadFile(filepath.Join(dir, "parley.log"))
			t.Logf("parley says:\n%s", said)
		}
	})
	child := func() int {
		out, _ := exec.Command(control, "-c", main, "pid", "parley").Output()
		pid, _ := strconv.Atoi(strings.TrimSpace(string(out)))
		return pid
	}
	eventually(t, "the server is well", func() bool { return healthy(admin) })
	first := child()
	if first == 0 {
		t.Fatal("supervisord knows no such program")
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is started again", func() bool { return healthy(admin) && child() != first })
	greet(t, "gorilla", fmt.Sprintf("ws://127.0.0.1:%d/", port))
	if out, err := exec.Command(control, "-c", main, "stop", "parley").CombinedOutput(); err != nil {
		t.Errorf("stop: %v\n%s", err, out)
	}
	if out, _ := exec.Command(control, "-c", main, "status", "parley").CombinedOutput(); !strings.Contains(string(out), "STOPPED") || healthy(admin) {
		t.Errorf("after stop: %s", out)
	}
}

// systemd understands every line of the unit, and parley takes the arguments there.
func TestSystemdUnit(t *testing.T) {
	unit := deployed(t, "parley.service", "/usr/local/bin/parley", binary)
	path := filepath.Join(t.TempDir(), "parley.service")
	writeFile(t, path, unit)
	if out, err := exec.Command(need(t, "systemd-analyze"), "verify", path).CombinedOutput(); err != nil || strings.Contains(string(out), "parley.service") {
		t.Errorf("%v\n%s", err, out)
	}
	_, command, _ := strings.Cut(unit, "ExecStart=")
	command, _, _ = strings.Cut(command, "\n")
	settings := filepath.Join(t.TempDir(), "parley.yaml")
	writeFile(t, settings, "port: none\n")
	words := strings.Fields(strings.ReplaceAll(command, "/etc/parley.yaml", settings))
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	exit, ok := err.(*exec.ExitError)
	if !ok || !strings.Contains(unit, fmt.Sprintf("RestartPreventExitStatus=%d\n", exit.ExitCode())) || !strings.Contains(string(out), "parley.yaml:1") {
		t.Errorf("%q with a wrong setting ends with %v: %s", command, err, out)
	}
}
