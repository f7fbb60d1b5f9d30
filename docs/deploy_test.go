package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func deployFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// instructions are the lines of a Containerfile that begin with a word, without it.
func instructions(containerfile, word string) (list []string) {
	for line := range strings.Lines(containerfile) {
		if rest, ok := strings.CutPrefix(line, word+" "); ok {
			list = append(list, strings.TrimSpace(rest))
		}
	}
	return list
}

// No engine builds the Containerfile here. What it copies is there, and is all that the program is made of; the
// compiler is the module's; what it starts is what it has built.
func TestContainerfile(t *testing.T) {
	file := deployFile(t, "Containerfile")
	var copied []string
	for _, line := range instructions(file, "COPY") {
		words := strings.Fields(line)
		if strings.HasPrefix(words[0], "--from=build") {
			if !strings.Contains(file, "-o "+words[1]+" ./cmd/parley") || instructions(file, "ENTRYPOINT")[0] != `["`+words[2]+`"]` {
				t.Errorf("%s: it is not what is built, or not what is started", line)
			}
			continue
		}
		for _, path := range words[:len(words)-1] {
			if _, err := os.Stat(filepath.Join("..", path)); err != nil {
				t.Errorf("COPY %s: %v", path, err)
			}
			copied = append(copied, path)
		}
	}
	for _, s := range sources(t) {
		top, _, _ := strings.Cut(s.path, "/")
		if !s.test() && slices.Contains([]string{"cmd", "engine", "protocol", "rooms"}, top) != slices.Contains(copied, top) {
			t.Errorf("%s is not copied, or need not be", s.path)
		}
	}
	mod, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(string(mod))[1]
	if from := instructions(file, "FROM"); from[0] != "golang:"+version+" AS build" || from[1] != "scratch" {
		t.Errorf("%q: the module wants Go %s", from, version)
	}
	if user := instructions(file, "USER"); len(user) != 1 || strings.HasPrefix(user[0], "0") || strings.HasPrefix(user[0], "root") {
		t.Errorf("USER %q", user)
	}
	for arg, uses := range map[string][]string{"VERSION": {"-X main.version=${VERSION}", `image.version="${VERSION}"`}, "COMMIT": {"-X main.revision=${COMMIT}", `image.revision="${COMMIT}"`}} {
		// An argument is declared before the first stage, with its default, and again in each stage that uses it.
		if n := strings.Count(file, "\nARG "+arg+"\n"); n != 2 || strings.Count(file, "\nARG "+arg+"=") != 1 {
			t.Errorf("ARG %s is declared in %d stages: hand it to the linker and to the label", arg, n)
		}
		for _, use := range uses {
			if !strings.Contains(file, use) {
				t.Errorf("the image does not know its version or commit: there is no %s", use)
			}
		}
	}
	verbs := regexp.MustCompile(`\["/parley", "(\w+)"\]`).FindStringSubmatch(file)
	if main := files(t, "tools.go")["cmd/parley/tools.go"] + files(t, "healthcheck.go")["cmd/parley/healthcheck.go"]; verbs == nil || !strings.Contains(main, `"`+verbs[1]) {
		t.Errorf("%q is no verb", verbs)
	}
	checkVariables(t, file)
}

// checkVariables wants every PARLEY_ variable to be a setting.
func checkVariables(t *testing.T, text string) {
	t.Helper()
	settings, err := os.ReadFile("configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`PARLEY_(\w+)`).FindAllStringSubmatch(text, -1)
	if len(found) == 0 {
		t.Error("it sets nothing: the search is wrong")
	}
	for _, m := range found {
		if !strings.Contains(string(settings), "| `"+strings.ToLower(m[1])+"` |") {
			t.Errorf("%s is no setting", m[0])
		}
	}
}

// The compose file is YAML, and what it names is there.
func TestCompose(t *testing.T) {
	text := deployFile(t, "docker-compose.yaml")
	var compose struct {
		Services map[string]struct {
			Build    struct{ Context, Dockerfile string }
			Volumes  []string
			Networks []string
		}
		Networks map[string]any
	}
	if err := yaml.Unmarshal([]byte(text), &compose); err != nil {
		t.Fatal(err)
	}
	build := compose.Services["parley"].Build
	if _, err := os.Stat(filepath.Join("deploy", build.Context, build.Dockerfile)); build.Dockerfile == "" || err != nil {
		t.Errorf("%+v: %v", build, err)
	}
	mounted, _, _ := strings.Cut(compose.Services["nginx"].Volumes[0], ":")
	if _, err := os.Stat(filepath.Join("deploy", mounted)); err != nil {
		t.Error(err)
	}
	for name, service := range compose.Services {
		for _, network := range service.Networks {
			if _, ok := compose.Networks[network]; !ok {
				t.Errorf("%s is in a network %s that there is not", name, network)
			}
		}
	}
	checkVariables(t, text)
}

// Under the unit the server can write to one directory, and the documentation names it as data_dir.
func TestUnit(t *testing.T) {
	unit := deployFile(t, "parley.service")
	m := regexp.MustCompile(`(?m)^StateDirectory=(\S+)$`).FindStringSubmatch(unit)
	if m == nil || !strings.Contains(unit, "\nProtectSystem=strict\n") {
		t.Fatal("nothing can be written: give the unit a StateDirectory")
	}
	for name, text := range map[string]string{"parley.service": unit, "README.md": deployFile(t, "README.md")} {
		if !strings.Contains(text, "data_dir: /var/lib/"+m[1]) {
			t.Errorf("%s does not name data_dir: /var/lib/%s", name, m[1])
		}
	}
}
