package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A machine is a Debian system of its own: it has the files of this one, and every change is in memory and ends with it. Its
// processes, users' files, network and services are its own.
type machine struct {
	t    *testing.T
	init int // its first process
}

// spawn mounts this machine's files below changes that are in memory, and starts in them what follows. All mounts end with the
// processes.
const spawn = `set -e
mount -t tmpfs -o mode=0755 tmpfs "$1"
mkdir "$1/changes" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/changes,workdir=$1/work" "$1/root"
`

// boot starts a machine with systemd as its first process. The folders are in it, below /release.
func boot(t *testing.T, releases ...string) *machine {
	t.Helper()
	needRoot(t)
	nspawn := need(t, "systemd-nspawn")
	dir := t.TempDir()
	words := []string{"--mount", "--propagation", "private", "sh", "-c", spawn + `root="$1/root"; shift
# No services of this machine, no word that none may start (policy-rc.d), and no index of manual pages at each installation.
rm -f "$root"/etc/systemd/system/multi-user.target.wants/* "$root/usr/sbin/policy-rc.d" "$root/var/lib/man-db/auto-update"
exec ` + nspawn + ` --quiet --register=no --keep-unit --private-network --link-journal=no --resolv-conf=off --timezone=off \
  --console=pipe --machine=parley-release --directory="$root" "$@" --boot -- --unit=multi-user.target`, "sh", dir}
	for i, release := range releases {
		words = append(words, fmt.Sprintf("--bind-ro=%s:/release/%d", release, i))
	}
	cmd := exec.Command(need(t, "unshare"), words...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	m := &machine{t: t}
	t.Cleanup(func() {
		if m.init > 0 {
			syscall.Kill(m.init, syscall.SIGKILL) // with a first process all others of its namespace end
		}
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		if t.Failed() {
			t.Logf("the machine says:\n%s", said.Bytes())
		}
	})
	eventually(t, "the machine has booted", func() bool {
		if m.init == 0 {
			m.init = firstBelow(cmd.Process.Pid)
			return false
		}
		out, _ := m.try("systemctl is-system-running")
		return out == "running\n" || out == "degraded\n"
	})
	return m
}

// firstBelow is the process below pid that is the first of its namespace; 0 while there is none.
func firstBelow(pid int) int {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, word := range strings.Fields(string(children)) {
		child, _ := strconv.Atoi(word)
		status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
		for line := range strings.Lines(string(status)) {
			if ids := strings.Fields(line); len(ids) > 2 && ids[0] == "NSpid:" && ids[len(ids)-1] == "1" {
				return child
			}
		}
		if found := firstBelow(child); found > 0 {
			return found
		}
	}
	return 0
}

// try runs lines of a shell in the machine, and returns what they print.
func (m *machine) try(lines string) (string, error) {
	cmd := exec.Command("nsenter", "--target", strconv.Itoa(m.init), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
		"env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
		"bash", "-euo", "pipefail", "-c", lines)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is try for lines that must succeed.
func (m *machine) run(lines string) string {
	m.t.Helper()
	out, err := m.try(lines)
	if err != nil {
		m.t.Fatalf("%s\n%v\n%s", lines, err, out)
	}
	return strings.TrimSpace(out)
}

// want runs a line, and compares what it prints.
func (m *machine) want(line, want string) {
	m.t.Helper()
	if got, err := m.try(line); strings.TrimSpace(got) != want {
		m.t.Errorf("%s\nprints %q (%v), want %q", line, strings.TrimSpace(got), err, want)
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "mounts and namespaces need root")
	}
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		lacking(t, "this machine is no Debian")
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for until := time.Now().Add(2 * time.Minute); !holds(); {
		if time.Now().After(until) {
			t.Fatalf("after two minutes it is not true that %s", what)
		}
		<-time.After(50 * time.Millisecond)
	}
}

// packageOf is the name of the Debian package in a release.
func packageOf(t *testing.T, dir string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s holds %d packages: %v", dir, len(found), err)
	}
	return filepath.Base(found[0])
}
