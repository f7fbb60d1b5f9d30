package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schema is CycloneDX's own, which comes with the library.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").CombinedOutput()
	fatal(t, err, out)
	dir := filepath.Join(strings.TrimSpace(string(out)), "schema")
	c := jsonschema.NewCompiler()
	for name, file := range map[string]string{"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json"} {
		text, err := jsonschema.UnmarshalJSON(bytes.NewReader(content(t, filepath.Join(dir, file))))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource("http://cyclonedx.org/schema/"+name, text); err != nil {
			t.Fatal(err)
		}
	}
	c.AssertFormat()
	s, err := c.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The list of components obeys CycloneDX's schema, and names every module that Go says the program is made of, with its version.
func TestComponents(t *testing.T) {
	dir := folder(t, newerVersion)
	name := "parley_" + newerVersion + "_linux_" + runtime.GOARCH
	text := content(t, filepath.Join(dir, name+".cdx.json"))
	rules := schema(t)
	judge := func(text []byte) error {
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return rules.Validate(value)
	}
	if err := judge(text); err != nil {
		t.Error(err)
	}
	for _, fault := range [][2]string{{`"bomFormat": "CycloneDX"`, `"bomFormat": "Cyclone"`}, {`"type": "library"`, `"type": "book"`}, {`"MIT"`, `"MYT"`}, {"urn:uuid:", "uuid:"}} {
		if judge(bytes.Replace(text, []byte(fault[0]), []byte(fault[1]), 1)) == nil {
			t.Errorf("%s goes unnoticed: the schema is not applied", fault[1])
		}
	}
	var bom struct {
		Components []struct{ Name, Version, Purl string }
		Metadata   struct{ Component struct{ Version string } }
	}
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, c := range bom.Components {
		listed[c.Name] = c.Version
	}
	_, texts := unpacked(t, content(t, filepath.Join(dir, name+".tar.gz")))
	built, err := buildinfo.Read(bytes.NewReader(texts[name+"/parley"]))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range built.Deps {
		if listed[m.Path] != m.Version {
			t.Errorf("%s %s is listed as %q", m.Path, m.Version, listed[m.Path])
		}
	}
	if len(built.Deps) < 10 || len(listed) != len(built.Deps)+1 || "go"+listed["std"] != built.GoVersion || bom.Metadata.Component.Version != newerVersion {
		t.Errorf("%d modules, %d listed, Go %q, version %q", len(built.Deps), len(listed), listed["std"], bom.Metadata.Component.Version)
	}
}
