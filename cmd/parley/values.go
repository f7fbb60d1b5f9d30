package main

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// set parses text into the setting's field. It trims white space, such as the carriage return of an env file. It refuses
// quotes around the value: it cannot tell whether they belong to it.
func (s setting) set(in *settings, text string) error {
	text = strings.TrimSpace(text)
	if strings.Trim(text, "\"'“”‘’") != text {
		return errors.New("there are quotes around the value that would be part of it; leave them out")
	}
	field := reflect.ValueOf(in).Elem().FieldByIndex(s.index)
	wrong := func() error { return fmt.Errorf("%q is not %s", text, s.kind()) }
	switch s.typ {
	case reflect.TypeFor[time.Duration]():
		d, ok := parseDuration(text)
		if !ok {
			return wrong()
		}
		if d <= 0 {
			return fmt.Errorf("%q is no time; give more than 0", text)
		}
		field.SetInt(int64(d))
	case reflect.TypeFor[[]string]():
		list, err := parseList(text)
		if err != nil {
			return wrong()
		}
		if s.key == "origins" && len(list) == 0 && text != noOrigins {
			return errors.New(`it is empty; write "*" to admit every origin, or leave the key out`)
		}
		field.Set(reflect.ValueOf(list))
	case reflect.TypeFor[bool]():
		b, err := strconv.ParseBool(text)
		if err != nil {
			return wrong()
		}
		field.SetBool(b)
	case reflect.TypeFor[int]():
		n, err := strconv.Atoi(text)
		switch {
		case errors.Is(err, strconv.ErrRange) && !strings.HasPrefix(text, "-"):
			n = math.MaxInt // check names the largest valid value
		case err != nil:
			return wrong()
		}
		if n < 0 {
			return fmt.Errorf("%d is negative", n)
		}
		if n == 0 {
			zero, ok := zeroMeans[s.key]
			if !ok {
				return fmt.Errorf("0 means nothing here; leave the key out for the default of %s", s.text(new(defaultSettings())))
			}
			n = zero
		}
		field.SetInt(int64(n))
	default:
		return s.setText(field, text)
	}
	return nil
}

// mayBeEmpty are the keys of texts for which "" is a value: the file, directory, server or field does not exist. Lists may
// be empty, too, except origins.
var mayBeEmpty = []string{"jwt_secret_file", "jwt_keys_file", "jwt_jwks_url", "jwt_issuer", "jwt_audience", "jwt_cookie", "data_dir", "bus_url", "bus_url_file", "bus_credentials", "proxy_header", "api_keys_file"}

// choices are the valid texts of keys that do not take every text.
var choices = map[string][]string{"log_level": {"debug", "info", "warn", "error"}, "log_format": {"text", "json"}, "auth": {"off", "optional", "required"},
	"sends": {"auto", "ring", "plain"}}

func (s setting) setText(field reflect.Value, text string) error {
	if list := choices[s.key]; list != nil {
		for _, c := range list {
			if c == text {
				field.SetString(text)
				return nil
			}
		}
		return fmt.Errorf("%q is none of %s%s", text, strings.Join(list, ", "), didYouMean(text, list))
	}
	switch {
	case text == "" && !slices.Contains(mayBeEmpty, s.key):
		return errors.New("the value is empty")
	case strings.HasSuffix(s.key, "host"):
		text = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]") // as in a URL; check refuses other brackets
	}
	field.SetString(text)
	return nil
}

// parseDuration reads seconds, or Go's own notation.
func parseDuration(text string) (time.Duration, bool) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		if seconds != seconds {
			return 0, false
		}
		// A Duration holds some 292 years. A longer time becomes one that is still above every setting's range.
		return time.Duration(min(max(seconds, -9e9), 9e9) * float64(time.Second)), true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

// parseList reads values between commas, or a list as YAML and JSON write it.
func parseList(text string) (list []string, err error) {
	if strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") {
		if err := yaml.Unmarshal([]byte(text), &list); err != nil {
			return nil, err
		}
		return slices.DeleteFunc(list, func(part string) bool { return strings.TrimSpace(part) == "" }), nil
	}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list, nil
}
