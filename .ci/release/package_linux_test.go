package main

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// What Debian's tools read of the package: who owns which file, which file is the operator's, and that the scripts are shell.
func TestPackage(t *testing.T) {
	dir := folder(t, newerVersion)
	path := filepath.Join(dir, packageOf(t, dir))
	tool := need(t, "dpkg-deb")
	if want := "parley_0.0.1_" + runtime.GOARCH + ".deb"; filepath.Base(path) != want {
		t.Errorf("the package is called %s, want %s", filepath.Base(path), want)
	}
	for field, want := range map[string]string{"Package": "parley", "Version": "0.0.1", "Architecture": runtime.GOARCH, "Depends": "adduser", "Section": "net", "Priority": "optional"} {
		out, err := exec.Command(tool, "--field", path, field).Output()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("%s: %q (%v), want %q", field, out, err, want)
		}
	}
	out, err := exec.Command(tool, "--contents", path).CombinedOutput()
	fatal(t, err, out)
	var names []string
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		name, mode := strings.TrimPrefix(words[5], "."), words[0]
		if words[1] != "root/root" {
			t.Errorf("%s is of %s", name, words[1])
		}
		if strings.HasPrefix(mode, "d") {
			if mode != "drwxr-xr-x" {
				t.Errorf("%s has mode %s", name, mode)
			}
			continue
		}
		if want := map[bool]string{true: "-rwxr-xr-x", false: "-rw-r--r--"}[name == "/usr/bin/parley"]; mode != want {
			t.Errorf("%s has mode %s", name, mode)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"/etc/parley.yaml", "/usr/bin/parley", "/usr/lib/systemd/system/parley.service", "/usr/share/bash-completion/completions/parley",
		"/usr/share/doc/parley/CHANGELOG.md.gz", "/usr/share/doc/parley/THIRD-PARTY.txt.gz", "/usr/share/doc/parley/changelog.gz", "/usr/share/doc/parley/copyright",
		"/usr/share/doc/parley/examples/nginx.conf", "/usr/share/fish/vendor_completions.d/parley.fish", "/usr/share/man/man1/parley.1.gz",
		"/usr/share/man/man5/parley.yaml.5.gz", "/usr/share/zsh/vendor-completions/_parley"}; !slices.Equal(names, want) {
		t.Errorf("it holds %q\nwant %q", names, want)
	}
	control := t.TempDir()
	out, err = exec.Command(tool, "--control", path, control).CombinedOutput()
	fatal(t, err, out)
	if got := string(content(t, filepath.Join(control, "conffiles"))); got != "/etc/parley.yaml\n" {
		t.Errorf("conffiles: %q", got)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		out, err := exec.Command(need(t, "sh"), "-n", filepath.Join(control, script)).CombinedOutput()
		if text := content(t, filepath.Join(control, script)); err != nil || !bytes.Contains(text, []byte("\nset -e\n")) {
			t.Errorf("%s: %v %s", script, err, out)
		}
	}
	if lintian, err := exec.LookPath("lintian"); err == nil {
		// It is a static program, which is what lintian calls an error; the changelog is no Debian developer's.
		out, _ := exec.Command(lintian, "--suppress-tags", "statically-linked-binary", path).CombinedOutput()
		if bytes.Contains(out, []byte("E: ")) {
			t.Errorf("lintian: %s", out)
		}
	}
}

// systemd reads every line of the package's unit.
func TestPackagedUnit(t *testing.T) {
	source := content(t, filepath.Join("..", "..", "docs", "deploy", "parley.service"))
	unit, err := packagedUnit(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"User=parley", "ExecStart=/usr/bin/parley serve --config /etc/parley.yaml", "StateDirectory=parley"} {
		if !strings.Contains(string(unit), "\n"+line+"\n") {
			t.Errorf("the unit has no line %s", line)
		}
	}
	if strings.Contains(string(unit), "DynamicUser") || strings.Contains(string(unit), "/usr/local") {
		t.Error("the unit is not the package's")
	}
	if _, err := packagedUnit(bytes.Replace(source, []byte("DynamicUser=yes\n"), nil, 1)); err == nil {
		t.Error("a unit that has changed passes")
	}
}

// The package on a machine with systemd: it starts the server as its user, on loopback; an upgrade restarts it with the new
// program and keeps the operator's settings; a service that the operator has disabled stays so; a purge leaves nothing but
// the user.
func TestPackageLives(t *testing.T) {
	older, newer := folder(t, olderVersion), folder(t, newerVersion)
	m := boot(t, older, newer)
	first, second := "/release/0/"+packageOf(t, older), "/release/1/"+packageOf(t, newer)

	m.run("dpkg --install " + first)
	m.want("systemctl is-active parley", "active")
	m.want("systemctl is-enabled parley", "enabled")
	m.want("parley healthcheck", "ok")
	m.want("ps -o user= -p $(systemctl show --property MainPID --value parley)", "parley")
	m.want("stat -c '%U:%G %a' /etc/parley.yaml /var/lib/parley", "root:parley 640\nparley:parley 700")
	m.want("ss -Hltn | awk '{ print $4 }' | sort", "127.0.0.1:9090\n127.0.0.1:9091\n127.0.0.1:9092")
	if got := m.run("parley version"); !strings.HasPrefix(got, "parley "+olderVersion+" commit ") {
		t.Error(got)
	}
	m.run("man --where parley parley.yaml && test -s /usr/share/bash-completion/completions/parley")

	m.run("printf 'reconnection_ttl: 123\\n' >> /etc/parley.yaml && chmod 0644 /etc/parley.yaml && systemctl reload-or-restart parley")
	before := m.run("systemctl show --property MainPID --value parley")
	m.run("dpkg --install " + second)
	m.want("systemctl is-active parley", "active")
	m.want("parley healthcheck", "ok")
	m.want("ls /etc/parley.yaml*", "/etc/parley.yaml")
	m.want("stat -c '%U:%G %a' /etc/parley.yaml", "root:parley 644")
	if got := m.run("parley check-config /etc/parley.yaml | grep -v '# default$'"); !regexp.MustCompile(`(?m)^reconnection_ttl: +123 `).MatchString(got) || !strings.Contains(got, "/var/lib/parley") {
		t.Errorf("after the upgrade the settings are\n%s", got)
	}
	if got := m.run("systemctl show --property MainPID --value parley"); got == before {
		t.Error("the upgrade has not restarted the server")
	}
	if got := m.run("parley version"); !strings.HasPrefix(got, "parley "+newerVersion+" commit ") {
		t.Error(got)
	}

	m.run("systemctl disable --now parley && dpkg --install " + second)
	m.want("systemctl is-active parley", "inactive")
	m.want("systemctl is-enabled parley", "disabled")
	m.run("systemctl enable --now parley")

	m.run("dpkg --remove parley")
	m.want("systemctl is-active parley", "inactive")
	m.want("ls /etc/parley.yaml /usr/bin/parley 2>/dev/null", "/etc/parley.yaml")
	m.run("dpkg --install " + second)
	m.want("systemctl is-active parley", "active")
	m.run("dpkg --purge parley")
	m.want("find /etc /opt /run /srv /usr /var -xdev -name 'parley*' -not -path '/var/log/*'", "")
	m.want("getent passwd parley | cut -d: -f1", "parley")
}

// The package on a machine without systemd, such as a container: it installs and purges. Started by hand as the unit says, as the
// user parley, the server serves.
func TestPackageWithoutSystemd(t *testing.T) {
	needRoot(t)
	dir := folder(t, newerVersion)
	unit, err := packagedUnit(content(t, filepath.Join("..", "..", "docs", "deploy", "parley.service")))
	if err != nil {
		t.Fatal(err)
	}
	start := regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindSubmatch(unit)[1]
	lines := spawn + `
mount --bind "$2" "$1/root/mnt"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
ip link set lo up
exec chroot "$1/root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -euo pipefail -c '
dpkg --install /mnt/*.deb
setpriv --reuid=parley --regid=parley --init-groups ` + string(start) + ` & server=$!
until parley healthcheck 2>/dev/null; do kill -0 $server; sleep 0.1; done
echo "as $(ps -o user= -p $server)"
kill $server; wait $server
test -n "$(ls -A /var/lib/parley)"
dpkg --purge parley
ls -d /etc/parley.yaml /var/lib/parley /usr/bin/parley 2>/dev/null || echo "nothing is left"'`
	out, err := exec.Command(need(t, "unshare"), "--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", lines, "sh", t.TempDir(), dir).CombinedOutput()
	fatal(t, err, out)
	for _, part := range []string{"\nok\n", "\nas parley\n", "\nnothing is left\n"} {
		if !bytes.Contains(out, []byte(part)) {
			t.Errorf("%q is missing from\n%s", part, out)
		}
	}
}
