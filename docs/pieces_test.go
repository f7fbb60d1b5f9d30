package docs

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/format"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// libraryPages have pieces of Go, each of which may be followed by a conversation with a server that has it.
var libraryPages = []string{"docs/library.md", "docs/library-handlers.md", "docs/library-server.md"}

var (
	goOrText = regexp.MustCompile("(?sm)^```(go|text)\n(.*?)^```$")
)

// piece is a part of a program in a page, and the conversation that follows it.
//
// Owner: the test.
type piece struct {
	page  string
	code  string
	whole bool // it is a program by itself
	ports *strings.Replacer
	talk  []string
}

// pieces are those of all pages. The READMEs' programs are the concern of TestReadmePrograms, style.md shows forms, and
// translations have the same pieces.
func pieces(t *testing.T) (list []*piece) {
	t.Helper()
	all := pages(t)
	for _, page := range slices.Sorted(maps.Keys(all)) {
		library := slices.Contains(libraryPages, page)
		if page == "docs/style.md" || strings.HasSuffix(page, ".zh.md") {
			continue
		}
		for _, m := range goOrText.FindAllStringSubmatch(all[page], -1) {
			whole := strings.HasPrefix(m[2], "package ")
			switch {
			case m[1] == "go" && (library || !whole):
				list = append(list, &piece{page: page, code: m[2], whole: whole})
			case m[1] == "go" || !library:
			case len(list) == 0 || list[len(list)-1].page != page || list[len(list)-1].talk != nil:
				t.Errorf("%s: a conversation has no piece of Go in front of it:\n%s", page, m[2])
			default:
				list[len(list)-1].talk = strings.Split(strings.TrimSpace(m[2]), "\n")
			}
		}
	}
	return list
}

// parts are declarations, and statements between them.
func (p *piece) parts() []string {
	if p.whole {
		return []string{p.code}
	}
	return strings.Split(strings.TrimSpace(p.code), "\n\n")
}

var declaration = regexp.MustCompile(`^(func|type) `)

// Every piece of Go in the pages is as gofmt writes it.
func TestPiecesFormatted(t *testing.T) {
	all := pieces(t)
	for _, m := range goBlock.FindAllStringSubmatch(files(t, "")["docs/walks/go.md"], -1) {
		all = append(all, &piece{page: "docs/walks/go.md", code: m[1], whole: true})
	}
	for _, p := range all {
		for _, part := range p.parts() {
			want, err := format.Source([]byte(part))
			if err != nil || string(want) != part {
				t.Errorf("%s (%v): gofmt writes\n%s", p.page, err, want)
			}
		}
	}
}

// The pages name every function of package engine, and every method of the types that an application calls.
func TestLibraryDoors(t *testing.T) {
	texts := files(t, "")
	shown := texts["docs/library.md"] + texts["docs/library-handlers.md"] + texts["docs/library-server.md"]
	missing := func(shown string) (list []string) {
		for _, s := range sources(t) {
			if s.dir() != "engine" || s.test() {
				continue
			}
			for _, d := range s.file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || !f.Name.IsExported() || f.Recv != nil && !ast.IsExported(typeName(f.Recv.List[0].Type)) || notForCallers[f.Name.Name] {
					continue
				}
				if !regexp.MustCompile(`\b` + f.Name.Name + `\b`).MatchString(shown) {
					list = append(list, s.path+": "+f.Name.Name)
				}
			}
		}
		return list
	}
	if len(missing(strings.ReplaceAll(shown, "OnConnect", ""))) != 1 {
		t.Error("a door that is taken out goes unnoticed: the rule does not run")
	}
	for _, door := range missing(shown) {
		t.Errorf("%s is in none of the pages about the library: say when to use it", door)
	}
}

// notForCallers are methods that Go itself or our own packages call.
var notForCallers = map[string]bool{"Error": true}

// known are the packages that a piece may use without an import.
var known = []string{"bytes", "context", "encoding/json", "errors", "fmt", "log", "log/slog", "net", "net/http", "os", "os/signal", "strings", "syscall",
	"time", "github.com/gobwas/ws", module + "/engine", module + "/engine/access", module + "/engine/admin", module + "/engine/api",
	module + "/engine/cluster"}

// programOf makes one program of pieces: run with the number of one, it serves with that piece until its standard input ends.
func programOf(list []*piece) string {
	var top, body, table strings.Builder
	for i, p := range list {
		fmt.Fprintf(&body, "func piece%d(ctx context.Context, srv *engine.Server, c *engine.Conn) error {\n", i)
		for _, part := range p.parts() {
			if declaration.MatchString(part) {
				fmt.Fprintf(&top, "%s\n", part)
			} else {
				fmt.Fprintf(&body, "%s\n", part)
			}
		}
		body.WriteString("return nil\n}\n")
		fmt.Fprintf(&table, "piece%d, ", i)
	}
	text := top.String() + body.String() + fmt.Sprintf(`
type account struct{ ID, Name string }

func check(token string) (account, error) { return account{ID: token}, nil } // of the text around a piece

func main() {
	i := 0
	fmt.Sscan(os.Args[1], &i)
	srv, err := engine.New(engine.Config{Port: -1, OffloadTimeout: 500 * time.Millisecond, History: []string{"news", "chat:**"}})
	if err == nil {
		err = []func(context.Context, *engine.Server, *engine.Conn) error{%s}[i](context.Background(), srv, nil)
	}
	if err == nil {
		err = srv.Start()
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(srv.Addr())
	io.Copy(io.Discard, os.Stdin)
	srv.Shutdown(context.Background())
}
`, table.String())
	imports := "\"io\"\n"
	for _, path := range known {
		if regexp.MustCompile(`\b` + filepath.Base(path) + `\.[A-Z]`).MatchString(text) {
			imports += fmt.Sprintf("%q\n", path)
		}
	}
	return "package main\nimport (\n" + imports + ")\n" + text
}

// build builds a program in the repository's module.
func build(t *testing.T, text string) (binary string, err error) {
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "program")
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", binary, source)
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, out)
	}
	return binary, nil
}

func compiled(t *testing.T, text string) string {
	t.Helper()
	binary, err := build(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

// The pieces of Go that pages show compile, and the conversations behind them are what clients read.
func TestPiecesOfGo(t *testing.T) {
	if _, err := build(t, programOf([]*piece{{code: "srv.Vanish()"}})); err == nil {
		t.Error("a planted call goes unnoticed: the rule does not run")
	}
	all := pieces(t)
	parts := slices.DeleteFunc(slices.Clone(all), func(p *piece) bool { return p.whole })
	program := compiled(t, programOf(parts))
	talks := 0
	for i, p := range all {
		if p.talk == nil {
			continue
		}
		talks++
		t.Run(fmt.Sprintf("%s %d", filepath.Base(p.page), i), func(t *testing.T) {
			t.Parallel()
			command := exec.Command(program, fmt.Sprint(slices.Index(parts, p)))
			if p.whole {
				p.ports = strings.NewReplacer("9090", freePort(t), "9091", freePort(t), "9092", freePort(t))
				command = exec.Command(compiled(t, p.ports.Replace(p.code)))
			}
			p.plays(t, command)
		})
	}
	if len(parts) < 25 || talks < 10 {
		t.Errorf("the pages show %d pieces and %d conversations: the search is wrong", len(parts), talks)
	}
}

// freePort is below the ports that the kernel gives to programs that dial.
func freePort(t *testing.T) string {
	t.Helper()
	for range 1000 {
		port := fmt.Sprint(10_000 + rand.IntN(20_000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return ""
}

// plays starts the program, and holds the conversation with it.
func (p *piece) plays(t *testing.T, program *exec.Cmd) {
	if _, err := program.StdinPipe(); err != nil { // it serves until this ends
		t.Fatal(err)
	}
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	program.Env = append(os.Environ(), "SHOP_KEY="+shopKey)
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		program.Process.Signal(syscall.SIGTERM)
		defer time.AfterFunc(time.Minute, func() { program.Process.Kill() }).Stop()
		if err := program.Wait(); p.whole && err != nil {
			t.Error("the program ends with", err)
		}
	}()
	addr := ""
	if p.whole {
		addr = p.ports.Replace("127.0.0.1:9090")
	} else {
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		addr = strings.TrimSpace(line)
	}
	s := &stage{t: t, addr: addr, people: map[string]person{}}
	for _, line := range p.talk {
		if m := asked.FindStringSubmatch(line); m != nil {
			s.asks(m[1], p.ports.Replace(m[2]), m[3], m[4])
		} else {
			s.line(line)
		}
	}
	for name, conn := range s.people {
		wsutil.WriteClientText(conn, []byte(`{"type":"ping"}`))
		if got := s.hears(name); !strings.HasPrefix(got, `{"type":"pong"`) {
			t.Errorf("%s reads more than the page shows: %s", name, got)
		}
	}
}

// stage is a server with the people of a conversation.
//
// Owner: the test.
type stage struct {
	t      *testing.T
	addr   string
	people map[string]person
}

type person struct {
	net.Conn
	from io.Reader
}

func (p person) Read(b []byte) (int, error) { return p.from.Read(b) }

// shopKey is a key of the form of the API's.
var shopKey = "pk_shop_" + strings.Repeat("A", 43)

var asked = regexp.MustCompile(`^(GET|POST) (\S+)(?: (\{.*\}))?: (.*)$`)

// asks sends a request, as a backend with the key does.
func (s *stage) asks(method, address, body, want string) {
	s.t.Helper()
	request, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+shopKey)
	request.Header.Set("Content-Type", "application/json")
	for until := time.Now().Add(time.Minute); ; {
		got := ""
		response, err := http.DefaultClient.Do(request)
		if err == nil {
			text, _ := io.ReadAll(response.Body)
			response.Body.Close()
			got = strings.TrimSpace(string(text))
		}
		switch {
		case err == nil && got == want:
			return
		case time.Now().After(until) || err == nil && method == http.MethodPost:
			s.t.Fatalf("%s %s is answered %q, %v: want %s", method, address, got, err, want)
		}
		<-time.After(10 * time.Millisecond)
	}
}

var spoken = regexp.MustCompile(`^(\w+) (->|<-|opens|is closed:)(:? .*)?$`)

// line plays a line: NAME opens QUERY; NAME opens QUERY: STATUS REASON; NAME -> MESSAGE; NAME <- MESSAGE; NAME is closed: CODE REASON.
func (s *stage) line(line string) {
	s.t.Helper()
	m := spoken.FindStringSubmatch(line)
	if m == nil {
		s.t.Fatalf("%q is no line of a conversation", line)
	}
	name, words := m[1], strings.TrimSpace(m[3])
	if _, here := s.people[name]; !here && m[2] != "opens" {
		s.opens(name, "")
	}
	switch m[2] {
	case "opens":
		query, refused, _ := strings.Cut(" "+words, ": ")
		if refused == "" {
			s.opens(name, strings.TrimSpace(query))
		} else if got := s.refusal(strings.TrimSpace(query)); got != refused {
			s.t.Fatalf("%s is answered %q: want %q", name, got, refused)
		}
	case "->":
		wsutil.WriteClientText(s.people[name], []byte(words))
	case "<-":
		if got := s.hears(name); unlike(got) != unlike(words) {
			s.t.Fatalf("%s reads\n%s\nand the page has\n%s", name, got, words)
		}
	default:
		if got := s.hears(name); got != words {
			s.t.Fatalf("%s reads\n%s\nand the page has the close\n%s", name, got, words)
		}
		delete(s.people, name)
	}
}

var varies = regexp.MustCompile(`\b[0-9a-f]{24}\b|"timestamp":\d+|"retry_after":\d+|"epoch":"[^"]+"`)

// unlike is a message without what differs from run to run.
func unlike(text string) string { return varies.ReplaceAllString(text, "X") }

func (s *stage) opens(name, query string) {
	s.t.Helper()
	for until := time.Now().Add(time.Minute); ; {
		conn, early, _, err := ws.Dial(s.t.Context(), "ws://"+s.addr+"/"+query)
		if err == nil {
			s.t.Cleanup(func() { conn.Close() })
			s.people[name] = person{conn, conn}
			if early != nil { // frames that came with the answer
				s.people[name] = person{conn, io.MultiReader(early, conn)}
			}
			return
		}
		if time.Now().After(until) {
			s.t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// hears is the next message, the greeting and its token aside, or the code and the reason of a close.
func (s *stage) hears(name string) string {
	s.t.Helper()
	s.people[name].SetReadDeadline(time.Now().Add(time.Minute))
	for {
		f, err := ws.ReadFrame(s.people[name])
		if err != nil {
			s.t.Fatal(name, err)
		}
		switch m := string(f.Payload); {
		case f.Header.OpCode == ws.OpClose:
			code, reason := ws.ParseCloseFrameData(f.Payload)
			return fmt.Sprintf("%d %s", code, reason)
		case f.Header.OpCode == ws.OpText && !strings.HasPrefix(m, `{"type":"connected"`) && !strings.HasPrefix(m, `{"type":"reconnect_token"`):
			return m
		}
	}
}

// refusal is the status and the body with which a handshake is refused.
func (s *stage) refusal(query string) string {
	s.t.Helper()
	request, err := http.NewRequest(http.MethodGet, "http://"+s.addr+"/"+query, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for field, value := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
		request.Header.Set(field, value)
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return fmt.Sprintf("%d %s", response.StatusCode, strings.TrimSpace(string(body)))
}
