package settings

import (
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"strings"
	"unicode"
)

// The texts of a configuration pass through shells, env files, templates and editors. Remains of these (quotes, a carriage
// return, a ~ that no shell has replaced) would name a wrong directory, or make a list that matches no address.

// CheckText describes the fault of a text; "" for none.
func CheckText(text string) string {
	switch {
	case text == "":
		return ""
	case strings.ContainsFunc(text, unicode.IsControl):
		return "holds a control character, such as the end of a line; leave it out"
	case strings.TrimSpace(text) != text:
		return "begins or ends with a space; leave it out"
	case strings.ContainsAny(text[:1]+text[len(text)-1:], `"'`):
		return "has quotes that belong to the value here; leave them out"
	}
	return ""
}

// CheckPath describes the fault of a path; "" for none.
func CheckPath(path string) string {
	switch {
	case strings.HasPrefix(path, "~"):
		return "begins with ~, which only a shell replaces; write the whole path"
	case strings.Contains(path, "://"):
		return "is a URL; write a path"
	case strings.Contains(path, "$"):
		return "holds $, which no shell has replaced by a variable; write the whole path"
	}
	return ""
}

// CheckHost describes the fault of an address to listen on, which may be a name; "" for none.
func CheckHost(host string) string {
	bare := BareHost(host)
	if _, err := netip.ParseAddr(bare); err == nil || host == "" {
		return ""
	}
	name, port, hasPort := strings.Cut(bare, ":")
	switch {
	case host == "*":
		return "write 0.0.0.0 or :: for all interfaces"
	case strings.Contains(host, "/"):
		return "write the address alone, without scheme and path"
	case hasPort && port != "" && strings.Trim(port, "0123456789") == "" && !strings.Contains(name, "["),
		strings.HasPrefix(host, "[") && strings.Contains(host, "]:"):
		return "the port has a key of its own"
	case strings.ContainsFunc(bare, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._", r)
	}):
		return "write an address (127.0.0.1, ::1), a name, or 0.0.0.0 for all interfaces"
	}
	return ""
}

// CheckBusURL checks each of the URLs that commas separate. Its hint shows no part of them: if a password has characters
// that belong to the URL, any part may be the password's.
func CheckBusURL(list string, named bool) string {
	const (
		form    = "write nats://host:4222, or tls://host:4222 for an encrypted connection"
		encoded = "it is no URL; / ? # % , in a user or password must be percent-encoded (%2F %3F %23 %25 %2C), or write both into the file of bus_credentials"
	)
	if list == "" {
		return ""
	}
	if hint := CheckText(list); hint != "" {
		return "it " + hint
	}
	for i, text := range strings.Split(list, ",") {
		text = strings.TrimSpace(text)
		u, err := url.Parse(text)
		switch {
		case i == 0 && !strings.HasPrefix(text, "nats://") && !strings.HasPrefix(text, "tls://"):
			return "it does not begin with nats:// or tls://; " + form
		case err != nil:
			return encoded
		case u.Scheme != "nats" && u.Scheme != "tls":
			return encoded
		case u.Opaque != "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(text, "#"):
			return encoded
		case u.Hostname() == "":
			return "it names no host; " + form
		case named && u.User != nil:
			return "it names a user, and so does the file of bus_credentials; leave one of the two out"
		}
	}
	return ""
}

// BareHost takes the brackets off an IPv6 address, which belong into URLs.
func BareHost(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok && strings.Contains(inner, ":") {
			return inner
		}
	}
	return host
}

// CheckTexts describes the first text in the fields of a struct that is certainly a mistake, and names its key; "" for none.
// The field with the secret key is skipped: a hint shows the text.
func CheckTexts(fields any, secret string) (key, hint string) {
	v := reflect.ValueOf(fields)
	for i := range v.NumField() {
		key := v.Type().Field(i).Tag.Get("key")
		var list []string
		switch value := v.Field(i).Interface().(type) {
		case string:
			list = []string{value}
		case []string:
			list = value
		}
		for _, text := range list {
			if fault := CheckText(text); fault != "" && key != secret {
				return key, fmt.Sprintf("%q %s", text, fault)
			}
		}
	}
	return "", ""
}

// CheckPaths describes the fault of a path among several, by their keys; "" for none.
func CheckPaths(paths map[string]string) (key, hint string) {
	for key, path := range paths {
		if fault := CheckPath(path); fault != "" {
			return key, fmt.Sprintf("%q %s", path, fault)
		}
	}
	return "", ""
}
