package api

import (
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Public generators of clients make usable types of the document: it avoids what they refuse or take for something else. "Exactly
// one of these fields" stands behind two nots, since a generator would make a type of each branch of a bare oneOf.
func TestDescriptionSuitsGenerators(t *testing.T) {
	names := map[string]string{}
	for _, kind := range []string{"schemas", "parameters", "responses", "securitySchemes"} {
		for name := range theContract().at("components", kind).(map[string]any) {
			upper := strings.ToUpper(name[:1]) + name[1:]
			if names[upper] != "" {
				t.Errorf("%s/%s and %s become one name in Go", kind, name, names[upper])
			}
			names[upper] = kind + "/" + name
		}
	}
	operation := theContract().at("components", "schemas", "Operation").(map[string]any)
	if mapped := operation["discriminator"].(map[string]any)["mapping"].(map[string]any); len(mapped) != len(operation["oneOf"].([]any)) {
		t.Errorf("the discriminator knows %d operations of a batch", len(mapped))
	}
	for name, schema := range theContract().at("components", "schemas").(map[string]any) {
		for _, fault := range hardToGenerate(schema) {
			t.Errorf("%s: %s", name, fault)
		}
	}
	planted, err := jsonschema.UnmarshalJSON(strings.NewReader(`{"oneOf":[{"required":["a"]}],"properties":{"a":false,"b":{"default":1},"c":{"type":"object"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if faults := hardToGenerate(planted); len(faults) != 4 {
		t.Errorf("of four planted faults the test finds %q", faults)
	}
}

// hardToGenerate tells of parts of a schema that generators do not handle.
func hardToGenerate(schema any) (faults []string) {
	object, ok := schema.(map[string]any)
	if !ok {
		return []string{"a schema that is no object is refused by generators in Go"}
	}
	if object["default"] != nil {
		faults = append(faults, "a field with a default is demanded by openapi-typescript")
	}
	if object["type"] == "object" && object["properties"] == nil && object["additionalProperties"] == nil && object["not"] == nil {
		faults = append(faults, "an object without properties is empty for openapi-typescript: say additionalProperties")
	}
	properties, _ := object["properties"].(map[string]any)
	for _, property := range properties {
		faults = append(faults, hardToGenerate(property)...)
	}
	if items := object["items"]; items != nil {
		faults = append(faults, hardToGenerate(items)...)
	}
	for _, key := range []string{"allOf", "anyOf", "oneOf"} {
		list, _ := object[key].([]any)
		for _, branch := range list {
			fields := branch.(map[string]any)
			if key != "allOf" && fields["type"] == nil && fields["$ref"] == nil && fields["allOf"] == nil {
				faults = append(faults, "a branch without a type is unknown to generators")
			}
			faults = append(faults, hardToGenerate(branch)...)
		}
	}
	return faults
}
