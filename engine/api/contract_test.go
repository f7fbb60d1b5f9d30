package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/parleyd/parley/engine"
)

// contract is openapi.json, against which requests and answers are held.
type contract struct {
	doc      map[string]any
	compiler *jsonschema.Compiler
	mu       sync.Mutex
	schemas  map[string]*jsonschema.Schema
}

var theContract = sync.OnceValue(func() *contract {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(description))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("openapi.json", doc); err != nil {
		panic(err)
	}
	return &contract{doc: doc.(map[string]any), compiler: c, schemas: map[string]*jsonschema.Schema{}}
})

// at follows a path of names into the document; nil if there is nothing.
func (c *contract) at(path ...string) any {
	var value any = c.doc
	for _, name := range path {
		object, _ := value.(map[string]any)
		if value = object[name]; value == nil {
			return nil
		}
	}
	return value
}

// resolve follows a $ref, and returns where it leads.
func (c *contract) resolve(path ...string) []string {
	object, _ := c.at(path...).(map[string]any)
	if ref, ok := object["$ref"].(string); ok {
		return strings.Split(strings.TrimPrefix(ref, "#/"), "/")
	}
	return path
}

// hold validates a JSON text against the schema at a path.
func (c *contract) hold(text []byte, path ...string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	pointer := "openapi.json#"
	for _, name := range path {
		pointer += "/" + escapePointer(name)
	}
	if c.schemas[pointer] == nil {
		schema, err := c.compiler.Compile(pointer)
		if err != nil {
			return err
		}
		c.schemas[pointer] = schema
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return c.schemas[pointer].Validate(value)
}

// exchange is a request and its answer.
type exchange struct {
	method, path string
	query        url.Values
	sent         []byte
	status       int
	header       http.Header
	got          []byte
}

// answerPath is the answer's place in the document. What no operation has is a problem of all of them.
func (c *contract) answerPath(x exchange) []string {
	status := fmt.Sprint(x.status)
	operation := strings.ToLower(strings.Replace(x.method, http.MethodHead, http.MethodGet, 1))
	if path := []string{"paths", x.path, operation, "responses", status}; c.at(path...) != nil {
		return c.resolve(path...)
	}
	for _, path := range []string{"/v1/publish", "/v1/batch"} {
		if x.status != 200 && c.at("paths", x.path, operation) == nil && c.at("paths", path, "post", "responses", status) != nil {
			return c.resolve("paths", path, "post", "responses", status)
		}
	}
	if x.status == http.StatusNotFound {
		return []string{"components", "responses", "NotFound"}
	}
	return nil
}

// check holds an exchange against the document. A request that was carried out is one that the document allows.
func (c *contract) check(x exchange) (faults []string) {
	say := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%s %s %d: ", x.method, x.path, x.status)+fmt.Sprintf(format, args...))
	}
	answer := c.answerPath(x)
	if answer == nil {
		say("the document has no such answer: %s", x.got)
		return faults
	}
	headers, _ := c.at(append(answer, "headers")...).(map[string]any)
	for name := range headers {
		at := append(c.resolve(append(answer, "headers", name)...), "schema")
		required := c.at(append(at[:len(at)-1:len(at)-1], "required")...) == true
		value := x.header.Get(name)
		if value == "" && !required {
			continue
		}
		quoted, _ := json.Marshal(value)
		if err := c.hold(quoted, at...); err != nil {
			say("header field %s: %v", name, err)
		}
	}
	kind := x.header.Get("Content-Type")
	if c.at(append(answer, "content", kind)...) == nil {
		say("the document has no such content type: %s", kind)
	} else if x.method != http.MethodHead {
		texts := [][]byte{x.got}
		if kind == linesType {
			texts = bytes.Split(bytes.TrimSuffix(x.got, []byte{'\n'}), []byte{'\n'})
		}
		for _, text := range texts {
			if err := c.hold(text, append(slices.Clone(answer), "content", kind, "schema")...); err != nil {
				say("%v: %s", err, text)
			}
		}
	}
	if x.status == 200 {
		faults = append(faults, c.checkQuery(x)...)
	}
	schema := []string{"paths", x.path, strings.ToLower(x.method), "requestBody", "content", "application/json", "schema"}
	if x.status/100 == 2 && c.at(schema...) != nil && !bytes.Contains(x.got, []byte(`"code":"`)) {
		if err := c.hold(x.sent, schema...); err != nil {
			say("the document does not allow the request that was carried out: %v: %s", err, x.sent)
		}
	}
	return faults
}

// checkQuery holds the parameters of a query against the document.
func (c *contract) checkQuery(x exchange) (faults []string) {
	operation := strings.ToLower(strings.Replace(x.method, http.MethodHead, http.MethodGet, 1))
	list, _ := c.at("paths", x.path, operation, "parameters").([]any)
	known := map[string]map[string]any{}
	for _, one := range list {
		parameter := one.(map[string]any)
		if ref, ok := parameter["$ref"].(string); ok {
			parameter = c.at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...).(map[string]any)
		}
		if parameter["in"] == "query" {
			known[parameter["name"].(string)] = parameter
		}
	}
	for name, parameter := range known {
		if parameter["required"] == true && x.query[name] == nil {
			faults = append(faults, x.path+": the document demands the parameter "+name)
		}
	}
	for name, values := range x.query {
		parameter := known[name]
		if parameter == nil {
			faults = append(faults, x.path+": the document has no parameter "+name)
			continue
		}
		text, _ := json.Marshal(values[0])
		switch kind := parameter["schema"].(map[string]any)["type"]; kind {
		case "array":
			text, _ = json.Marshal(values)
		case "integer":
			text = []byte(values[0])
		}
		if err := validate(parameter["schema"], text); err != nil {
			faults = append(faults, fmt.Sprintf("%s: parameter %s: %v", x.path, name, err))
		}
	}
	return faults
}

// validate holds a text against a schema that stands alone.
func validate(schema any, text []byte) error {
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("alone.json", schema); err != nil {
		return err
	}
	compiled, err := compiler.Compile("alone.json")
	if err != nil {
		return err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return err
	}
	return compiled.Validate(value)
}

// held is a transport that holds each exchange against the contract.
type held struct {
	t    testing.TB
	next http.RoundTripper
}

func (h held) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent []byte
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		if sent, err = io.ReadAll(body); err != nil {
			return nil, err
		}
	}
	resp, err := h.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	got, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(got))
	for _, fault := range theContract().check(exchange{r.Method, r.URL.Path, r.URL.Query(), sent, resp.StatusCode, resp.Header, got}) {
		h.t.Error(fault)
	}
	return resp, nil
}

// The check finds planted faults: so it runs.
func TestContractFindsFaults(t *testing.T) {
	good := exchange{http.MethodPost, "/v1/publish", nil, []byte(`{"room":"a","data":1}`), 200,
		http.Header{"Content-Type": {jsonType}, "Parley-Request": {"r_0123456789abcdef"}}, []byte("{}")}
	if faults := theContract().check(good); faults != nil {
		t.Fatal(faults)
	}
	for name, plant := range map[string]func(*exchange){
		"an unknown field": func(x *exchange) { x.sent = []byte(`{"room":"a","data":1,"x":1}`) },
		"two targets":      func(x *exchange) { x.sent = []byte(`{"room":"a","everybody":true,"data":1}`) },
		"data for all":     func(x *exchange) { x.sent = []byte(`{"everybody":true,"data":1}`) },
		"data for a user":  func(x *exchange) { x.sent = []byte(`{"user":"a","data":1}`) },
		"no user":          func(x *exchange) { x.sent = []byte(`{"user":"","message":{"type":"x"}}`) },
		"a strange answer": func(x *exchange) { x.got = []byte(`{"recipients":"1"}`) },
		"a strange status": func(x *exchange) { x.status = 418 },
		"no request id":    func(x *exchange) { x.header = http.Header{"Content-Type": {jsonType}} },
		"a content type": func(x *exchange) {
			x.header = http.Header{"Content-Type": {"text/plain"}, "Parley-Request": {"r_0123456789abcdef"}}
		},
		"a problem of no one": func(x *exchange) { x.status, x.got = 400, []byte(`{"code":"invalid_request"}`) },
	} {
		x := good
		plant(&x)
		if theContract().check(x) == nil {
			t.Errorf("%s goes unnoticed", name)
		}
	}
}

// The document has the operations of the table of routes, and no other.
func TestContractHasTheRoutes(t *testing.T) {
	var served, described []string
	for _, r := range routes {
		served = append(served, strings.ToLower(r.method)+" "+r.path)
		open := theContract().at("paths", r.path, strings.ToLower(r.method), "security")
		if list, ok := open.([]any); (ok && len(list) == 0) != r.open {
			t.Errorf("%s: the document says another thing about the key", r.path)
		}
	}
	for path, methods := range theContract().at("paths").(map[string]any) {
		for method := range methods.(map[string]any) {
			described = append(described, method+" "+path)
		}
	}
	slices.Sort(served)
	slices.Sort(described)
	if !slices.Equal(served, described) {
		t.Errorf("served %q, described %q", served, described)
	}
}

// The document has an example of every problem of the table, with its status and title; each is valid [RFC 9457 §3.1].
func TestContractHasTheProblems(t *testing.T) {
	described := map[string]bool{}
	for name, response := range theContract().at("components", "responses").(map[string]any) {
		at := []string{"components", "responses", name, "content", problemType}
		for code, example := range theContract().at(append(at, "examples")...).(map[string]any) {
			text, err := json.Marshal(example.(map[string]any)["value"])
			if err != nil {
				t.Fatal(err)
			}
			if err := theContract().hold(text, append(at, "schema")...); err != nil {
				t.Errorf("%s: %v", code, err)
			}
			var got struct {
				Type, Title, Code, Detail string
				Status                    int
			}
			if err := json.Unmarshal(text, &got); err != nil {
				t.Fatal(err)
			}
			described[code] = true
			i := slices.IndexFunc(problems[:], func(p struct {
				name   string
				status int
				title  string
			}) bool {
				return p.name == code
			})
			if i < 0 || got.Code != code || got.Type != "urn:parley:"+code || got.Status != problems[i].status || got.Title != problems[i].title {
				t.Errorf("%s in %v: the table has another row", code, response.(map[string]any)["description"])
			}
		}
	}
	for _, row := range problems {
		if !described[row.name] {
			t.Errorf("%s: the document has no example of it", row.name)
		}
	}
}

// exampleID is the id of a connection in the examples.
const exampleID = "8fc1000100000a3c5be7d1a2"

// Every example of a request is sent, with the id of a real connection, and gets a 200; every example of an
// answer is valid.
func TestContractExamples(t *testing.T) {
	w := start(t)
	for room, history := range map[string]*engine.HistoryOptions{"chat:1": {}, "game:9": nil} { // the examples delete one of them
		if err := w.srv.Rooms().Create(room, engine.RoomOptions{History: history}); err != nil {
			t.Fatal(err)
		}
	}
	paths := maps.Clone(theContract().at("paths").(map[string]any))
	delete(paths, "/v1/socket")                            // a message is no request
	delete(paths, "/v1/drain")                             // the server is one process, which cannot drain
	for _, path := range slices.Sorted(maps.Keys(paths)) { // so a room is read before it is deleted
		for method := range paths[path].(map[string]any) {
			examples, _ := theContract().at("paths", path, method, "requestBody", "content", jsonType, "examples").(map[string]any)
			if method == "post" && len(examples) == 0 {
				t.Errorf("%s has no example of a request", path)
			}
			if method == "get" {
				examples = map[string]any{"get": map[string]any{}}
			}
			for _, name := range slices.Sorted(maps.Keys(examples)) {
				text, err := json.Marshal(examples[name].(map[string]any)["value"])
				if err != nil {
					t.Fatal(err)
				}
				body := strings.ReplaceAll(string(text), exampleID, w.dial().id)
				if resp, got := w.send(w.request(strings.ToUpper(method), path+strings.ReplaceAll(exampleQuery(path, method), exampleID, w.dial().id), body)); resp.StatusCode/100 != 2 {
					t.Errorf("%s %s: %d %s", path, name, resp.StatusCode, got)
				}
			}
			status := "200"
			if theContract().at("paths", path, method, "responses", status) == nil {
				status = "201"
			}
			contents, _ := theContract().at("paths", path, method, "responses", status, "content").(map[string]any)
			if contents[jsonType] == nil {
				t.Errorf("%s has no answer", path)
			}
			for kind := range contents {
				checkExamples(t, "paths", path, method, "responses", status, "content", kind)
			}
		}
	}
}

// checkExamples holds the examples of an answer against its schema.
func checkExamples(t *testing.T, at ...string) {
	t.Helper()
	answers, _ := theContract().at(append(at, "examples")...).(map[string]any)
	if len(answers) == 0 {
		t.Errorf("%q has no example of an answer", at)
	}
	for name, example := range answers {
		text, err := json.Marshal(example.(map[string]any)["value"])
		if err != nil {
			t.Fatal(err)
		}
		if err := theContract().hold(text, append(at, "schema")...); err != nil {
			t.Errorf("%q %s: %v", at, name, err)
		}
	}
}

// exampleQuery is the query of an example: the examples of the parameters that are demanded.
func exampleQuery(path, method string) string {
	query := url.Values{}
	list, _ := theContract().at("paths", path, method, "parameters").([]any)
	for _, one := range list {
		parameter := one.(map[string]any)
		if ref, ok := parameter["$ref"].(string); ok {
			parameter = theContract().at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...).(map[string]any)
		}
		if example, ok := parameter["example"].(string); ok && parameter["in"] == "query" {
			query.Set(parameter["name"].(string), example)
		}
	}
	if len(query) == 0 {
		return ""
	}
	return "?" + query.Encode()
}

// The document is served as it lies in the repository, to everybody.
func TestDescriptionIsServed(t *testing.T) {
	w := start(t)
	r := w.request(http.MethodGet, "/openapi.json", "")
	r.Header.Del("Authorization")
	if resp, got := w.send(r); resp.StatusCode != 200 || got != string(description) {
		t.Errorf("%d, %d bytes", resp.StatusCode, len(got))
	}
}
