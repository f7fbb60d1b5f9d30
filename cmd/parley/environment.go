package main

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Other programs use the prefix PARLEY_, too. Kubernetes gives every pod variables for each Service of its namespace,
// named after the Service: one called parley puts PARLEY_SERVICE_HOST and PARLEY_PORT=tcp://10.0.0.1:9090 beside our
// settings. A compose file keeps PARLEY_TAG in its .env. So a variable that names no setting is a mistake only if it looks
// like a mistyped setting.

// ignoredVariables have the prefix and are no settings.
var ignoredVariables = []string{"CONFIG", "SETTLED", "API_KEY", "URL", "TOKEN"}

var (
	// linkName matches the names that Kubernetes and Docker make of a Service called parley or parley-ws, without the
	// prefix.
	linkName = regexp.MustCompile(`^([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO|START|END))?)$`)
	// linkURL matches their values for names that end with PORT, as the name of a setting may.
	linkURL = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// fromEnvironment reads settings from variables. A variable of another program is ignored, with a note if a reader could
// take it for a setting; a mistyped setting is a mistake.
func fromEnvironment(environ []string) (values map[string]value, notes []string, mistakes []error) {
	values = map[string]value{}
	known := append(keys(), "config", "api_key")
	for _, pair := range environ {
		name, text, _ := strings.Cut(pair, "=")
		rest, ours := strings.CutPrefix(name, envPrefix)
		if !ours || slices.Contains(ignoredVariables, rest) || linkName.MatchString(rest) {
			continue
		}
		s, isSetting := findSetting(strings.ToLower(rest))
		isLink := linkURL.MatchString(text) && (rest == "PORT" || strings.HasSuffix(rest, "_PORT"))
		switch near, distance := nearest(strings.ToLower(rest), known); {
		case isLink && isSetting:
			notes = append(notes, fmt.Sprintf("%s is ignored: a URL is no value of %s, Kubernetes sets such a variable for a Service of that name; "+
				"enableServiceLinks: false in the pod's spec turns them off, and --%s or the file sets the port", name, s.key, s.flag()))
		case isLink:
		case isSetting:
			values[s.key] = value{text, name}
		case distance <= max(1, max(len(rest), len(near))/4):
			mistakes = append(mistakes, fmt.Errorf("environment: %s names no setting; did you mean %q?", name, near))
		default:
			notes = append(notes, fmt.Sprintf("%s is ignored: it names no setting%s", name, didYouMean(strings.ToLower(rest), known)))
		}
	}
	slices.Sort(notes)
	return values, notes, mistakes
}
