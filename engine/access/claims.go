package access

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"
	"unicode/utf8"

	strict "github.com/go-jose/go-jose/v4/json"

	"github.com/parleyd/parley/protocol/pattern"
)

// Bounds of claims.
const (
	UserBytesMax  = 128
	TokenBytesMax = 16 << 10
	autoMax       = 64
	audiencesMax  = 64
	jtiBytesMax   = 255
	attributesMax = 256
	nameBytesMax  = 255          // of a room, of an attribute
	secondsMax    = 253402300799 // the end of the year 9999
)

// Rights are the patterns of rooms that a token allows, for each act, compiled. The zero Rights allow nothing.
// Owner: immutable after ParseClaims.
type Rights struct {
	patterns [acts]pattern.Set
}

// Claims are the statements of a token. A time that the token does not have is zero.
//
// Owner: the caller.
type Claims struct {
	User       string // sub
	ID         string // jti; empty if there is none
	Issuer     string // iss
	Audience   []string
	Expires    time.Time
	Issued     time.Time
	NotBefore  time.Time
	Rights     *Rights
	Auto       []string                   // rooms that the connection enters at once; each is allowed by join
	Attributes map[string]json.RawMessage // as the token has them, byte for byte
}

// registered is the part of the claims that RFC 7519 names. Numbers stay text until they are checked.
//
// Owner: the parser.
type registered struct {
	Subject   *string         `json:"sub"`
	Issuer    *string         `json:"iss"`
	Audience  json.RawMessage `json:"aud"`
	Expires   json.RawMessage `json:"exp"`
	Issued    json.RawMessage `json:"iat"`
	NotBefore json.RawMessage `json:"nbf"`
	ID        *string         `json:"jti"`
}

// registeredNames cannot be the name of our own claim.
var registeredNames = []string{"sub", "iss", "aud", "exp", "iat", "nbf", "jti"}

// ParseClaims reads the payload of a token strictly; claim is the name under which rights stand (parley). It checks the form
// alone: the caller compares times, issuer and audience. A field in our own claim that it does not know is an error, since
// it may be a right that the issuer misspelt. Names are compared exactly, and none may stand twice. Any goroutine.
func ParseClaims(payload []byte, claim string) (*Claims, error) {
	// encoding/json bounds the depth, which the parser that refuses duplicate names does not.
	if len(payload) > TokenBytesMax || !utf8.Valid(payload) || !json.Valid(payload) || !isObject(payload) {
		return nil, errors.New("the payload is not an object of JSON")
	}
	var top map[string]json.RawMessage
	if err := strict.Unmarshal(payload, &top); err != nil {
		return nil, errors.New("a claim stands there twice")
	}
	var r registered
	if err := strict.Unmarshal(payload, &r); err != nil {
		return nil, errors.New("sub, iss or jti is not a text")
	}
	c := &Claims{Rights: &Rights{}}
	if err := c.identify(&r); err != nil {
		return nil, err
	}
	if err := c.date(&r); err != nil {
		return nil, err
	}
	own, exists := top[claim]
	if !exists {
		return c, nil
	}
	if err := c.allow(own); err != nil {
		return nil, fmt.Errorf("%s: %w", claim, err)
	}
	return c, nil
}

func isObject(text []byte) bool { return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("{")) }

func (c *Claims) identify(r *registered) error {
	if r.Subject == nil {
		return errors.New("sub is missing")
	}
	if err := pattern.CheckName(*r.Subject, UserBytesMax); err != nil {
		return fmt.Errorf("sub %w", err)
	}
	c.User = *r.Subject
	if r.ID != nil {
		if err := pattern.CheckName(*r.ID, jtiBytesMax); err != nil {
			return fmt.Errorf("jti %w", err)
		}
		c.ID = *r.ID
	}
	if r.Issuer != nil {
		c.Issuer = *r.Issuer
	}
	if r.Audience == nil {
		return nil
	}
	one := [1]*string{}
	if err := strict.Unmarshal(r.Audience, &one[0]); err == nil && one[0] != nil {
		c.Audience = []string{*one[0]}
		return nil
	}
	audience, err := parseTexts(r.Audience, audiencesMax)
	if err != nil {
		return fmt.Errorf("aud %w", err)
	}
	c.Audience = audience
	return nil
}

// parseTexts reads a list of texts. A null, which decoders take for an empty text, is no text.
func parseTexts(raw json.RawMessage, most int) ([]string, error) {
	var pointers []*string
	if err := strict.Unmarshal(raw, &pointers); err != nil || pointers == nil {
		return nil, errors.New("is not a list of texts")
	}
	if len(pointers) > most {
		return nil, fmt.Errorf("has %d entries: %d are allowed", len(pointers), most)
	}
	texts := make([]string, 0, len(pointers))
	for _, p := range pointers {
		if p == nil {
			return nil, errors.New("is not a list of texts")
		}
		texts = append(texts, *p)
	}
	return texts, nil
}

func (c *Claims) date(r *registered) error {
	if r.Expires == nil {
		return errors.New("exp is missing")
	}
	for _, d := range []struct {
		name string
		raw  json.RawMessage
		to   *time.Time
	}{{"exp", r.Expires, &c.Expires}, {"iat", r.Issued, &c.Issued}, {"nbf", r.NotBefore, &c.NotBefore}} {
		if d.raw == nil {
			continue
		}
		at, ok := parseDate(string(d.raw))
		if !ok {
			return fmt.Errorf("%s is not a number of seconds", d.name)
		}
		*d.to = at
	}
	return nil
}

// parseDate reads a NumericDate [RFC 7519 §2]: seconds since 1970, perhaps with a fraction, exactly. 0 is no date of a token
// and would be mistaken for a missing one.
func parseDate(text string) (time.Time, bool) {
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
		return time.Unix(seconds, 0).UTC(), 0 < seconds && seconds <= secondsMax
	}
	// The comparison comes before the exact reading: an exponent of many digits would make a number of many megabytes.
	about, err := strconv.ParseFloat(text, 64)
	if err != nil || !(about > 0 && about <= secondsMax) || len(text) > 40 {
		return time.Time{}, false
	}
	exact, ok := new(big.Rat).SetString(text)
	if !ok {
		return time.Time{}, false
	}
	nanoseconds := new(big.Int).Mul(exact.Num(), big.NewInt(int64(time.Second)))
	nanoseconds.Quo(nanoseconds, exact.Denom())
	seconds, rest := new(big.Int).QuoRem(nanoseconds, big.NewInt(int64(time.Second)), new(big.Int))
	if nanoseconds.Sign() <= 0 {
		return time.Time{}, false
	}
	return time.Unix(seconds.Int64(), rest.Int64()).UTC(), true
}

// ownFields are the fields of our own claim.
var ownFields = []string{"join", "publish", "members", "history", "auto", "attributes"}

// allow reads our own claim.
func (c *Claims) allow(raw json.RawMessage) error {
	var own map[string]json.RawMessage
	if err := strict.Unmarshal(raw, &own); err != nil || own == nil {
		return errors.New("it is not an object, or a field stands there twice")
	}
	lists := map[string][]string{}
	for name, value := range own {
		switch name {
		case "join", "publish", "members", "history", "auto":
			texts, err := parseTexts(value, max(pattern.SetMax, autoMax))
			if err != nil {
				return fmt.Errorf("%s %w", name, err)
			}
			lists[name] = texts
		case "attributes":
			if err := c.describe(value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%.40q is not known; the fields are %s", name, list(ownFields))
		}
	}
	if n := len(lists["join"]) + len(lists["publish"]) + len(lists["members"]) + len(lists["history"]); n > pattern.SetMax {
		return fmt.Errorf("%d patterns: %d are allowed together", n, pattern.SetMax)
	}
	for what := range fields {
		patterns, err := pattern.ParseAll(lists[fields[what].name])
		if err != nil {
			return fmt.Errorf("%s: %w", fields[what].name, err)
		}
		if _, given := lists[fields[what].name]; !given && (what == int(members) || what == int(history)) {
			patterns = c.Rights.patterns[join]
		}
		c.Rights.patterns[what] = patterns
	}
	for _, room := range lists["auto"] {
		if err := pattern.CheckName(room, nameBytesMax); err != nil {
			return fmt.Errorf("a room of auto %w", err)
		}
		if !c.Rights.patterns[join].Match(room) {
			return errors.New("join does not allow a room of auto")
		}
	}
	c.Auto = lists["auto"]
	return nil
}

func (c *Claims) describe(raw json.RawMessage) error {
	if err := strict.Unmarshal(raw, &c.Attributes); err != nil || c.Attributes == nil {
		return errors.New("attributes is not an object, or a name stands there twice")
	}
	if len(c.Attributes) > attributesMax {
		return fmt.Errorf("%d attributes: %d are allowed", len(c.Attributes), attributesMax)
	}
	for name := range c.Attributes {
		if err := pattern.CheckName(name, nameBytesMax); err != nil {
			return fmt.Errorf("the name of an attribute %w", err)
		}
	}
	return nil
}
