package engine_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/parleyd/parley/protocol/message"
)

// wireDocument is docs/asyncapi.yaml, against which messages are held.
//
// Owner: immutable.
type wireDocument struct {
	root     map[string]any
	schemas  map[string]*jsonschema.Schema // by side and type: "server.joined"
	messages map[string]any
}

var theWire = sync.OnceValues(func() (*wireDocument, error) {
	text, err := os.ReadFile("../docs/asyncapi.yaml")
	if err != nil {
		return nil, err
	}
	return readWire(text)
})

// readWire reads the document, and compiles the schema of each message.
func readWire(text []byte) (*wireDocument, error) {
	var raw map[string]any
	if err := yaml.Unmarshal(text, &raw); err != nil {
		return nil, err
	}
	asJSON, err := json.Marshal(raw)
	if err != nil {
		return nil, err
	}
	root, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return nil, err
	}
	d := &wireDocument{root: root.(map[string]any), schemas: map[string]*jsonschema.Schema{}}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("asyncapi.json", root); err != nil {
		return nil, err
	}
	d.messages, _ = d.at("components/messages").(map[string]any)
	for name := range d.messages {
		if d.schemas[name], err = c.Compile("asyncapi.json#/components/schemas/" + name); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func wire(t *testing.T) *wireDocument {
	t.Helper()
	d, err := theWire()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// at follows a path of names into the document; nil if there is nothing.
func (d *wireDocument) at(path string) any {
	var value any = d.root
	for name := range strings.SplitSeq(path, "/") {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	return value
}

// properties are the members of a message, but its type; those that must be there are true.
func (d *wireDocument) properties(name string) map[string]bool {
	list := map[string]bool{}
	all, _ := d.at("components/schemas/" + name + "/properties").(map[string]any)
	required, _ := d.at("components/schemas/" + name + "/required").([]any)
	for property := range all {
		if property != "type" {
			list[property] = slices.Contains(required, any(property))
		}
	}
	return list
}

// hold validates a message of one side ("client" or "server"). Every member that the document does not name is a fault, but in
// messages of the application.
func (d *wireDocument) hold(side string, text []byte) error {
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("%s is no object", text)
	}
	kind, _ := object["type"].(string)
	name := side + "." + kind
	if d.schemas[name] == nil || kind == "application" {
		return d.schemas[side+".application"].Validate(value)
	}
	for member := range object {
		if _, known := d.properties(name)[member]; !known && member != "type" {
			return fmt.Errorf("%s: the document has no %q in it: %s", name, member, text)
		}
	}
	return d.schemas[name].Validate(value)
}

// types are the types of one side, but that of the application's.
func (d *wireDocument) types(side string) (list []string) {
	for name := range d.messages {
		if kind, ok := strings.CutPrefix(name, side+"."); ok && kind != "application" {
			list = append(list, kind)
		}
	}
	slices.Sort(list)
	return list
}

// The document is whole: each $ref leads somewhere, and each message is in the channel and in an operation.
func TestAsyncAPI(t *testing.T) {
	d := wire(t)
	if d.at("asyncapi") != "3.1.0" {
		t.Error("it is of another version of AsyncAPI")
	}
	refs := map[string]int{}
	var walk func(value any)
	walk = func(value any) {
		switch v := value.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				refs[strings.TrimPrefix(ref, "#/")]++
			}
			for _, inner := range v {
				walk(inner)
			}
		case []any:
			for _, inner := range v {
				walk(inner)
			}
		}
	}
	walk(d.root)
	for ref := range refs {
		if d.at(ref) == nil {
			t.Errorf("$ref %s leads nowhere", ref)
		}
	}
	for name := range d.messages {
		if refs["components/messages/"+name] != 1 || refs["channels/connection/messages/"+name] == 0 {
			t.Errorf("%s: the channel names it %d times, operations %d times", name, refs["components/messages/"+name], refs["channels/connection/messages/"+name])
		}
	}
	if d.at("nothing/there") != nil || len(d.messages) < 20 {
		t.Error("the search is wrong")
	}
}

// Every example is valid; and what is wrong with a message is found.
func TestAsyncAPIExamples(t *testing.T) {
	d := wire(t)
	for name, one := range d.messages {
		side, kind, _ := strings.Cut(name, ".")
		if one.(map[string]any)["name"] != kind {
			t.Errorf("%s: its name is another one", name)
		}
		examples, _ := one.(map[string]any)["examples"].([]any)
		if len(examples) == 0 {
			t.Errorf("%s has no example", name)
		}
		for _, example := range examples {
			text, err := json.Marshal(example.(map[string]any)["payload"])
			if err != nil {
				t.Fatal(err)
			}
			if err := d.hold(side, text); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !strings.Contains(string(text), `"type":"`+kind+`"`) && kind != "application" {
				t.Errorf("%s: an example is of another type: %s", name, text)
			}
		}
	}
	for text, side := range map[string]string{
		`{"type":"joined","room":"a"}`:                                         "server",
		`{"type":"joined","room":"a","members":1,"memebrs":2}`:                 "server",
		`{"type":"joined","room":"a","members":"1"}`:                           "server",
		`{"type":"skip","room":"a","seq":1,"epoch":"e","why":"x"}`:             "server",
		`{"type":"gap","room":"a","from":1,"seq":2,"epoch":"e 1"}`:             "server",
		`{"type":"broadcast","room":"a"}`:                                      "client",
		`{"type":"broadcast","room":"","data":1}`:                              "client",
		`{"type":"join","room":"a","since":{"last":0}}`:                        "client",
		`{"type":"join","room":"a","since":{"seq":1}}`:                         "client",
		`{"type":"history","room":"a","limit":101}`:                            "client",
		`{"type":"ping","ref":1.5}`:                                            "client",
		`{"type":"reconnect","token":"x","last":{"h":{"seq":-1,"epoch":"e"}}}`: "client",
		`{"type":"broadcast","room":"a","data":1,"idempotency_key":""}`:        "client",
		`["no object"]`: "client",
	} {
		if d.hold(side, []byte(text)) == nil {
			t.Errorf("%s goes unnoticed", text)
		}
	}
}

var comment = regexp.MustCompile(`(?m)^\s*//.*$`)

// found are the first groups of all matches of a pattern in files, but in lines of comments.
func found(t *testing.T, pattern string, paths ...string) (list []string) {
	t.Helper()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		code := comment.ReplaceAllString(string(text), "")
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(code, -1) {
			list = append(list, m[1])
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// program are the Go files that make messages of the server.
func program(t *testing.T) (paths []string) {
	t.Helper()
	for _, glob := range []string{"*.go", "internal/*/*.go", "access/*.go", "../protocol/message/*.go", "../rooms/*.go"} {
		list, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range list {
			if !strings.HasSuffix(path, "_test.go") {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// The document has the message types of the code, and no other.
func TestAsyncAPIHasTheTypes(t *testing.T) {
	routes := found(t, `(?m)^\t\t"(\w+)": +(?:func|\(\*loop\))`, "builtin.go")
	taken := append(routes, found(t, `string\(e\.Type\) == "(\w+)" && l\.srv`, "dispatch.go")...)
	slices.Sort(taken)
	if got := wire(t).types("client"); !slices.Equal(got, taken) {
		t.Errorf("the server takes %q, and the document has %q", taken, got)
	}
	told := append(found(t, `\{"type":"(\w+)"`, program(t)...), found(t, `appendNotice\(dst, "(\w+)"`, program(t)...)...)
	slices.Sort(told)
	if got := wire(t).types("server"); !slices.Equal(got, told) {
		t.Errorf("the server says %q, and the document has %q", told, got)
	}
	if codes := found(t, `(?m)^\t\w+: +\{"(\w+)", "\w`, "../protocol/message/code.go"); len(codes) < 20 || !slices.Equal(codes, wire(t).codes()) {
		t.Errorf("the server has the codes %q, and the document %q", codes, wire(t).codes())
	}
}

func (d *wireDocument) codes() (list []string) {
	all, _ := d.at("components/schemas/ErrorCode/examples").([]any)
	for _, code := range all {
		list = append(list, code.(string))
	}
	slices.Sort(list)
	return list
}

// whole are messages of the server that together have every member that there is.
func whole() [][]byte {
	at, ref, room := message.Position{Seq: 5, Epoch: "e"}, []byte(`"r"`), []byte("a")
	id, other := []byte("8fc1000100000a3c5be7d1a2"), "8fc1000100000b7e11c0f9d4"
	start := message.Start{Position: at, Until: 7, Replays: true, Judged: true, Gap: true, MissingFrom: 1, MissingTo: 5}
	notice := message.Notice{Room: "a", ID: id, User: "ann"}
	said := message.AppendBroadcast(nil, message.Broadcast{Room: room, From: id, User: `"ann"`, Data: []byte("1"), Timestamp: 1})
	return [][]byte{
		message.AppendGreeting(nil, message.Greeting{ID: id, Timestamp: 1, AuthRequired: true, User: "ann", ExpiresIn: 5}),
		message.AppendReconnectToken(nil, "token", 300),
		message.AppendJoined(nil, message.Joined{Room: room, Members: 1, Start: start, Ref: ref}),
		message.AppendLeft(nil, room, ref), message.AppendSentOut(nil, "a", "forbidden"),
		message.AppendNumber(nil, message.Body(said), at),
		message.AppendBroadcastSent(nil, message.BroadcastSent{Room: room, Delayed: true, Position: at, Ref: ref}),
		message.AppendBroadcastSent(nil, message.BroadcastSent{Room: room, Position: at, Duplicate: true}),
		message.AppendPong(nil, 1, ref),
		message.AppendReconnected(nil, message.Reconnected{ID: id, Previous: []byte(other), Rooms: []string{"a"}, Lost: []message.LostRoom{{Room: "b", Code: "room_full"}},
			Gaps: []string{"a"}, Restarts: []message.Restart{{Room: "a", Start: start, Repeats: 6}}, Ref: ref}),
		message.AppendMemberJoined(nil, notice), message.AppendMemberLeft(nil, notice), message.AppendAnnouncements(nil, "a", false, 501),
		message.AppendMembers(nil, message.Members{Room: room, Count: 1, IDs: []string{other}, Users: []string{"ann"}, Next: []byte("n"), Ref: ref}),
		message.AppendAuthenticatedAs(nil, "ann", 5, ref), message.AppendAuthExpiring(nil, 5), message.AppendGoodbye(nil, 2),
		message.AppendError(nil, "internal", "text", ref),
		message.AppendSkip(nil, "a", message.Skip{From: 3, Position: at, Why: message.WhyOwn}),
		message.AppendGap(nil, "a", 3, at), message.AppendReset(nil, "a", at), message.AppendPosition(nil, "a", at),
		message.AppendHistory(nil, message.History{Room: room, Low: 3, Top: 5, Messages: [][]byte{said}, Start: start, Ref: ref}),
		[]byte(`{"type":"ping"}`),
	}
}

// The document has the members of each message of the code, and no other.
func TestAsyncAPIHasTheFields(t *testing.T) {
	d := wire(t)
	told, everything := map[string]map[string]bool{}, map[string]bool{"type": true}
	for _, text := range whole() {
		if err := d.hold("server", text); err != nil {
			t.Errorf("%v", err)
		}
		var m map[string]json.RawMessage
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		kind := strings.Trim(string(m["type"]), `"`)
		if told[kind] == nil {
			told[kind] = map[string]bool{}
		}
		for name := range m {
			told[kind][name] = true
		}
		for _, name := range regexp.MustCompile(`"(\w+)":`).FindAllStringSubmatch(string(text), -1) {
			everything[name[1]] = true
		}
	}
	for _, kind := range d.types("server") {
		for name := range d.properties("server." + kind) {
			if !told[kind][name] {
				t.Errorf("%s: the document has %q, and the server never says it; or whole lacks it", kind, name)
			}
		}
	}
	for _, name := range append(found(t, "[{,`]\"(\\w+)\":", "../protocol/message/append.go", "../protocol/message/history.go"), found(t, `each\("(\w+)"`, "../protocol/message/history.go")...) {
		if !everything[name] {
			t.Errorf("the code has a member %q that no message in whole has: add it there, and to docs/asyncapi.yaml", name)
		}
	}
	taken := map[string]bool{"to": true} // no message of the server's own has it
	for _, kind := range d.types("client") {
		for name := range d.properties("client." + kind) {
			taken[name] = true
		}
	}
	source, err := os.ReadFile("../protocol/message/route.go")
	if err != nil {
		t.Fatal(err)
	}
	_, keys, _ := strings.Cut(string(source), "func keyOf(")
	keys, _, _ = strings.Cut(keys, "\n}\n")
	known := []string{}
	for _, m := range regexp.MustCompile(`"(\w+)"`).FindAllStringSubmatch(keys, -1) {
		if m[1] != "type" {
			known = append(known, m[1])
		}
	}
	slices.Sort(known)
	if list := slices.Sorted(maps.Keys(taken)); !slices.Equal(list, known) {
		t.Errorf("the server knows %q of a client's message, and the document has %q", known, list)
	}
}

var (
	tableRow = regexp.MustCompile("(?m)^\\| `(\\w+)` \\|([^|]*)\\|")
	field    = regexp.MustCompile("(\\*?)`(\\w+)`\\*?")
)

// The tables of docs/clients.md have the messages of the document, with their members: those in italics may be left out.
func TestTablesOfMessages(t *testing.T) {
	text, err := os.ReadFile("../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	for side, title := range map[string]string{"client": "### From the client\n", "server": "### From the server\n"} {
		_, table, ok := strings.Cut(string(text), title)
		table, _, _ = strings.Cut(table, "\n#")
		if !ok {
			t.Fatalf("docs/clients.md has no %s", title)
		}
		var kinds []string
		for _, row := range tableRow.FindAllStringSubmatch(table, -1) {
			kinds = append(kinds, row[1])
			shown := map[string]bool{}
			for _, m := range field.FindAllStringSubmatch(row[2], -1) {
				shown[m[2]] = m[1] == ""
			}
			if want := wire(t).properties(side + "." + row[1]); !maps.Equal(shown, want) {
				t.Errorf("docs/clients.md, %s: it has %v, and the document %v (true: it is always there)", row[1], shown, want)
			}
		}
		slices.Sort(kinds)
		if want := wire(t).types(side); !slices.Equal(kinds, want) {
			t.Errorf("docs/clients.md: the table %q has %q, and the document %q", strings.TrimSpace(title), kinds, want)
		}
	}
}

// The client in docs/clients.md is that of docs/wire.md, which the conformance test lets run.
func TestClientIsTheSame(t *testing.T) {
	var clients []string
	for _, path := range []string{"../docs/wire.md", "../docs/clients.md"} {
		clients = append(clients, found(t, "(?s)(```js\nlet token, last = .*?```\n)", path)...)
	}
	if len(clients) != 2 || clients[0] != clients[1] {
		t.Errorf("docs/clients.md and docs/wire.md do not have the same client: %d found", len(clients))
	}
}
