package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// Refusal is the reason that a client learns of a token that is not good.
type Refusal uint8

const (
	// Unauthorized: the client does not try again with this token.
	Unauthorized Refusal = iota
	// Expired: the token was good; the client fetches another.
	Expired
	// Unavailable: the keys cannot be had at this time; the client may come again with the same token.
	Unavailable
	// KeyUnknown: no key that is here fits; the caller calls VerifyWait on a goroutine that may block. VerifyWait itself
	// returns Unauthorized.
	KeyUnknown
)

// Code is the word for the wire protocol.
func (r Refusal) Code() string {
	switch r {
	case Expired:
		return "token_expired"
	case Unavailable, KeyUnknown:
		return "unavailable"
	}
	return "unauthorized"
}

// TokenError says why a token is not good. Problem is for logs: it quotes nothing secret, and of the token only names of
// fields.
type TokenError struct {
	Refusal Refusal
	Problem string
}

func (e *TokenError) Error() string { return e.Problem }

func refuse(r Refusal, format string, a ...any) *TokenError {
	return &TokenError{r, fmt.Sprintf(format, a...)}
}

// Options are the settings that tokens are held against. At least one of Secret, File and URL is given.
//
// Owner: the caller; immutable after NewVerifier.
type Options struct {
	Secret     []byte   // for HS256; nil if there is none
	File       *KeyFile // nil if there is none
	URL        *KeyURL  // nil if there is none
	Algorithms []string // nil: HS256 with a secret; ES256, RS256, PS256 and EdDSA with keys
	Issuer     string   // iss must be this; empty: any
	Audience   string   // aud must have this; empty: any. Demanded with a URL, where others have tokens of the same keys
	Claim      string   // the name of our own claim; empty: parley
	Leeway     time.Duration
}

// Verifier verifies tokens. Owner: immutable after NewVerifier; its sources of keys guard themselves.
type Verifier struct {
	o          Options
	algorithms []jose.SignatureAlgorithm
	secret     KeySet
}

const leewayMax = 10 * time.Minute

// OptionError says which field of Options is wrong, and how.
type OptionError struct{ Field, Problem string }

func (e *OptionError) Error() string { return e.Problem }

// NewVerifier checks the options: an algorithm without a key of its kind is an error, as is a leeway above ten minutes.
func NewVerifier(o Options) (*Verifier, error) {
	keys := o.File != nil || o.URL != nil
	switch {
	case o.Secret == nil && !keys:
		return nil, errors.New("neither a secret nor keys are given")
	case o.URL != nil && o.Audience == "":
		return nil, &OptionError{"Audience", "keys at a URL demand an audience: the issuer signs tokens for others with the same keys"}
	case o.Leeway < 0 || o.Leeway > leewayMax:
		return nil, &OptionError{"Leeway", fmt.Sprintf("a leeway is from 0 to %v", leewayMax)}
	case slices.Contains(registeredNames, o.Claim):
		return nil, &OptionError{"Claim", fmt.Sprintf("the claim %s has a meaning of its own in every token", o.Claim)}
	}
	if o.Secret != nil {
		if err := checkSecret(o.Secret); err != nil {
			return nil, fmt.Errorf("read secret: %w", err)
		}
	}
	if o.Claim == "" {
		o.Claim = "parley"
	}
	if o.Algorithms == nil {
		if o.Secret != nil {
			o.Algorithms = append(o.Algorithms, "HS256")
		}
		if keys {
			o.Algorithms = append(o.Algorithms, "ES256", "RS256", "PS256", "EdDSA")
		}
	}
	v := &Verifier{o: o}
	for _, name := range o.Algorithms {
		if err := v.pin(name, keys); err != nil {
			return nil, err
		}
	}
	if len(v.algorithms) == 0 {
		return nil, errors.New("the list of algorithms is empty")
	}
	v.secret.keys = []key{{kind: secret, public: slices.Clone(o.Secret)}}
	return v, nil
}

// secretBytes is how long the secret of an algorithm is at least [RFC 7518 §3.2].
var secretBytes = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

// pin adds an algorithm.
func (v *Verifier) pin(name string, keys bool) error {
	kind, known := algorithms[name]
	switch {
	case !known:
		return fmt.Errorf("the algorithm %.20q is not known; known are %s", name, list(slices.Sorted(maps.Keys(algorithms))))
	case kind == secret && v.o.Secret == nil:
		return fmt.Errorf("the algorithm %s needs a secret, and none is given", name)
	case kind == secret && len(v.o.Secret) < secretBytes[name]:
		return fmt.Errorf("the algorithm %s needs a secret of at least %d bytes", name, secretBytes[name])
	case kind != secret && !keys:
		return fmt.Errorf("the algorithm %s needs public keys, and none are given", name)
	}
	v.algorithms = append(v.algorithms, jose.SignatureAlgorithm(name))
	return nil
}

// Verify verifies a token at a time and returns its claims. It never blocks; where KeyUnknown is the refusal, VerifyWait may
// know more. An error is always a *TokenError. Any goroutine.
func (v *Verifier) Verify(token string, now time.Time) (*Claims, error) {
	s, refused := v.open(token)
	if refused != nil {
		return nil, refused
	}
	if refused = v.check(s, now); refused != nil {
		return nil, refused
	}
	return v.read(s, now)
}

// blind reports whether no token can be verified now.
func (v *Verifier) blind() bool {
	return v.o.URL != nil && v.o.Secret == nil && v.o.File == nil && !v.o.URL.Ready()
}

// VerifyWait is Verify, and if no key fits it waits until the keys at the URL have been read once more: for up to ten
// seconds and the time of the reading, or until the context ends. The time at which it is called is now. Any goroutine that
// may block.
func (v *Verifier) VerifyWait(ctx context.Context, token string, now time.Time) (*Claims, error) {
	s, refused := v.open(token)
	if refused != nil {
		return nil, refused
	}
	if refused = v.check(s, now); refused != nil && refused.Refusal == KeyUnknown {
		// A token that would be refused with any key is not worth a request.
		if _, err := v.read(s, now); err != nil {
			return nil, err
		}
		set, err := v.o.URL.await(ctx, func(set *KeySet) bool { return v.try(s, set) })
		switch {
		case err != nil:
			return nil, refuse(Unavailable, "wait for keys: %v", err)
		case set == nil:
			return nil, refuse(Unauthorized, "no key fits the token, also after the keys were read again")
		}
		return v.read(s, now)
	}
	if refused != nil {
		return nil, refused
	}
	return v.read(s, now)
}

// signed is a token in parts, whose signature is not verified yet.
//
// Owner: the goroutine that verifies.
type signed struct {
	jws       *jose.JSONWebSignature
	algorithm string
	kid       string
	tooMany   bool // more keys fit than are tried
}

// unsupported returns a header of the token that changes how the token is to be read, or an empty text. crit names such headers,
// and none is known here [RFC 7515 §4.1.11]. The library takes a header that is null for one that is missing.
func unsupported(token string) string {
	encoded, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	var headers map[string]json.RawMessage
	if err != nil || json.Unmarshal(text, &headers) != nil {
		return "of JSON"
	}
	for _, name := range []string{"crit", "b64", "zip"} {
		if _, given := headers[name]; given {
			return name
		}
	}
	return ""
}

// open takes a token apart. Only the compact form of three parts is a token, and its characters are compared first, since
// decoders skip line ends in the midst of a text.
func (v *Verifier) open(token string) (*signed, *TokenError) {
	if len(token) > TokenBytesMax {
		return nil, refuse(Unauthorized, "the token has more than %d bytes", TokenBytesMax)
	}
	if strings.Count(token, ".") != 2 || strings.ContainsFunc(token, foreign) {
		return nil, refuse(Unauthorized, "the token is not three parts of base64url")
	}
	jws, err := jose.ParseSignedCompact(token, v.algorithms)
	if err != nil {
		var algorithm *jose.ErrUnexpectedSignatureAlgorithm
		if errors.As(err, &algorithm) {
			return nil, refuse(Unauthorized, "the algorithm of the token is not in the list")
		}
		return nil, refuse(Unauthorized, "the header or the encoding of the token is wrong")
	}
	if name := unsupported(token); name != "" {
		return nil, refuse(Unauthorized, "the header %s is not supported", name)
	}
	header := &jws.Signatures[0].Protected
	if len(header.KeyID) > kidBytesMax {
		return nil, refuse(Unauthorized, "the kid of the token is too long")
	}
	return &signed{jws: jws, algorithm: header.Algorithm, kid: header.KeyID}, nil
}

// foreign reports whether a character cannot stand in a token.
func foreign(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_' || r == '.')
}

// check verifies the signature with the keys that are here.
func (v *Verifier) check(s *signed, now time.Time) *TokenError {
	if algorithms[s.algorithm] == secret {
		if v.try(s, &v.secret) {
			return nil
		}
		return refuse(Unauthorized, "the signature is wrong")
	}
	named := false // a key of this kid is here, so it is the signature that is wrong
	if v.o.File != nil {
		if v.try(s, v.o.File.Keys()) {
			return nil
		}
		named = v.o.File.Keys().names(s)
	}
	if v.o.URL != nil {
		set, ready := v.o.URL.keys(now)
		switch {
		case v.try(s, set):
			return nil
		case named || set.names(s):
		case !ready:
			return refuse(Unavailable, "the keys at the URL could not be read yet, or not for a day")
		default:
			return refuse(KeyUnknown, "no key fits the token")
		}
	}
	switch {
	case s.tooMany:
		return refuse(Unauthorized, "more than %d keys fit the token, and the first of them do not verify it: give the keys and the token a kid", keysTriedMax)
	case named:
		return refuse(Unauthorized, "the signature is wrong")
	}
	return refuse(Unauthorized, "no key fits the token, or the signature is wrong")
}

// names reports whether the set has a key under the kid of a token.
func (s *KeySet) names(t *signed) bool {
	return s != nil && t.kid != "" && slices.ContainsFunc(s.keys, func(k key) bool { return k.kid == t.kid && k.fits(t.algorithm, t.kid) })
}

// try reports whether a key of the set verifies the signature.
func (v *Verifier) try(s *signed, set *KeySet) bool {
	fit, more := set.find(s.algorithm, s.kid)
	s.tooMany = s.tooMany || more
	for _, k := range fit {
		if _, err := s.jws.Verify(k.public); err == nil {
			return true
		}
	}
	return false
}

// read reads the claims and holds them against the options. That a token has expired is said last: it is then good in all
// else, and another one from the same issuer will do.
func (v *Verifier) read(s *signed, now time.Time) (*Claims, error) {
	c, err := ParseClaims(s.jws.UnsafePayloadWithoutVerification(), v.o.Claim)
	if err != nil {
		return nil, refuse(Unauthorized, "read claims: %v", err)
	}
	switch latest := now.Add(v.o.Leeway); {
	case v.o.Issuer != "" && c.Issuer != v.o.Issuer:
		return nil, refuse(Unauthorized, "iss is not the issuer of the settings")
	case v.o.Audience != "" && !slices.Contains(c.Audience, v.o.Audience):
		return nil, refuse(Unauthorized, "aud has not the audience of the settings")
	case c.Issued.After(latest):
		return nil, refuse(Unauthorized, "iat is in the future: compare the clocks")
	case c.NotBefore.After(latest):
		return nil, refuse(Unauthorized, "nbf is in the future")
	case !now.Before(c.Expires.Add(v.o.Leeway)):
		return nil, refuse(Expired, "the token has expired")
	}
	return c, nil
}
