package access

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func verifier(t testing.TB, o Options) *Verifier {
	t.Helper()
	v, err := NewVerifier(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func keyFile(t testing.TB, text []byte) *KeyFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// all are options with a secret and public keys of all kinds, and all algorithms.
func all(t testing.TB) Options {
	return Options{
		Secret: hmacSecret, File: keyFile(t, publicPEM(t, "P-256", "P-384", "P-521", "RSA", "Ed25519")),
		Algorithms: slices.Sorted(maps.Keys(algorithms)), Issuer: "me", Audience: "chat", Leeway: 10 * time.Second,
	}
}

// signers is what signs with each algorithm.
func signers() map[string]any {
	p := pairs()
	return map[string]any{
		"HS256": hmacSecret, "HS384": hmacSecret, "HS512": hmacSecret, "ES256": p["P-256"], "ES384": p["P-384"], "ES512": p["P-521"],
		"RS256": p["RSA"], "RS384": p["RSA"], "RS512": p["RSA"], "PS256": p["RSA"], "PS384": p["RSA"], "PS512": p["RSA"], "EdDSA": p["Ed25519"],
	}
}

// expect wants a token to be refused in a way, for a reason.
func expect(t *testing.T, v *Verifier, token string, refusal Refusal, want string) {
	t.Helper()
	c, err := v.Verify(token, moment)
	var refused *TokenError
	if c != nil || !errors.As(err, &refused) || refused.Refusal != refusal || !strings.Contains(refused.Problem, want) {
		t.Errorf("%.60s: %+v, %v; want %s: %s", token, c, err, refusal.Code(), want)
	}
}

// A good token of each algorithm is good, and not with one bit changed anywhere in its signature or another payload.
func TestVerify(t *testing.T) {
	v := verifier(t, all(t))
	for algorithm, signer := range signers() {
		token := sign(t, algorithm, signer, "any", claimsAt(`,"parley":{"join":["a"]}`))
		c, err := v.Verify(token, moment)
		if err != nil || c.User != "42" || !c.Rights.patterns[join].Match("a") {
			t.Errorf("%s: %v", algorithm, err)
			continue
		}
		parts := strings.Split(token, ".")
		expect(t, v, parts[0]+"."+base64url(claimsAt(`,"parley":{"join":["**"]}`))+"."+parts[2], Unauthorized, "signature is wrong")
		for i := 0; i < len(parts[2])-1; i += 7 {
			changed := []byte(parts[2])
			changed[i] = map[bool]byte{true: 'B', false: 'A'}[changed[i] == 'A']
			expect(t, v, parts[0]+"."+parts[1]+"."+string(changed), Unauthorized, "")
		}
		expect(t, v, parts[0]+"."+parts[1]+".", Unauthorized, "")
	}
}

// The defaults pin one algorithm for a secret, and four for keys.
func TestVerifyDefaults(t *testing.T) {
	o := all(t)
	secretOnly := verifier(t, Options{Secret: hmacSecret})
	keysOnly := verifier(t, Options{File: o.File})
	both := verifier(t, Options{Secret: hmacSecret, File: o.File})
	for algorithm, signer := range signers() {
		token := sign(t, algorithm, signer, "", claimsAt(""))
		for _, c := range []struct {
			v    *Verifier
			good string
		}{{secretOnly, "HS256"}, {keysOnly, "ES256 RS256 PS256 EdDSA"}, {both, "HS256 ES256 RS256 PS256 EdDSA"}} {
			_, err := c.v.Verify(token, moment)
			if good := slices.Contains(strings.Fields(c.good), algorithm); good != (err == nil) {
				t.Errorf("%s where %s are good: %v", algorithm, c.good, err)
			} else if !good {
				expect(t, c.v, token, Unauthorized, "not in the list")
			}
		}
	}
}

// A public key is never a secret, no key serves another algorithm, and none is no algorithm.
func TestVerifyConfusion(t *testing.T) {
	o := all(t)
	v := verifier(t, o)
	payload := claimsAt("")
	for _, algorithm := range []string{"none", "None", "NONE", "nOnE", ""} {
		expect(t, v, base64url(`{"alg":"`+algorithm+`"}`)+"."+base64url(payload)+".", Unauthorized, "")
		expect(t, v, forge(`{"alg":"`+algorithm+`"}`, payload, hmacSecret), Unauthorized, "")
	}
	// The attacker signs with the text of the public key, as it is published.
	for _, public := range [][]byte{publicPEM(t, "RSA"), publicPEM(t, "P-256"), []byte(jwks(jwk(t, "RSA", "a", ""))), o.Secret[:32], nil} {
		for _, algorithm := range []string{"HS256", "RS256", "ES256", "EdDSA", "PS256"} {
			expect(t, v, forge(`{"alg":"`+algorithm+`"}`, payload, public), Unauthorized, "")
		}
		if _, err := NewVerifier(Options{Secret: public}); err == nil && len(public) != 32 {
			t.Errorf("%.30q became a secret", public)
		}
	}
	// The signature of one algorithm under the name of another of the same key.
	for from, to := range map[string]string{"RS256": "PS256", "PS256": "RS256", "RS512": "RS256", "ES384": "ES256", "ES256": "ES512", "EdDSA": "ES256", "HS512": "HS256"} {
		parts := strings.Split(sign(t, from, signers()[from], "", payload), ".")
		expect(t, v, base64url(`{"alg":"`+to+`"}`)+"."+parts[1]+"."+parts[2], Unauthorized, "")
	}
	// A key that is for one algorithm only.
	only := verifier(t, Options{File: keyFile(t, []byte(jwks(jwk(t, "RSA", "a", `,"alg":"PS256"`))))})
	expect(t, only, sign(t, "RS256", pairs()["RSA"], "a", payload), Unauthorized, "no key fits")
	if _, err := only.Verify(sign(t, "PS256", pairs()["RSA"], "a", payload), moment); err != nil {
		t.Error(err)
	}
}

// Headers that change how a token is read are refused, and keys that a token brings are not used [RFC 7515 §4.1.11].
func TestVerifyHeaders(t *testing.T) {
	v := verifier(t, all(t))
	payload := claimsAt("")
	if _, err := v.Verify(forge(`{"alg":"HS256","typ":"JWT","x":{"y":[]}}`, payload, hmacSecret), moment); err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{
		`{"alg":"HS256","crit":["exp"],"exp":1}`:    "crit",
		`{"alg":"HS256","crit":["b64"],"b64":true}`: "",
		`{"alg":"HS256","crit":[]}`:                 "crit",
		`{"alg":"HS256","crit":null}`:               "crit",
		`{"alg":"HS256","b64":false}`:               "b64",
		`{"alg":"HS256","zip":"DEF"}`:               "zip",
		`{"alg":"HS256","alg":"RS256"}`:             "header",
		`{"alg":"HS256","kid":7}`:                   "header",
		`{"alg":["HS256"]}`:                         "",
		`{"kid":"a"}`:                               "",
		`{"Alg":"HS256"}`:                           "",
		`[]`:                                        "header",
		`{`:                                         "header",
		``:                                          "",
		`{"alg":"HS256","kid":"` + strings.Repeat("k", 256) + `"}`: "too long",
	} {
		expect(t, v, forge(header, payload, hmacSecret), Unauthorized, want)
	}
	parts := strings.Split(sign(t, "ES256", pairs()["P-256 other"], "", payload), ".")
	own := base64url(`{"alg":"ES256","jwk":` + jwk(t, "P-256 other", "", "") + `}`)
	expect(t, v, own+"."+parts[1]+"."+parts[2], Unauthorized, "")
}

// Texts that are no tokens are refused before they cost anything.
func TestVerifyNoTokens(t *testing.T) {
	v := verifier(t, all(t))
	good := sign(t, "HS256", hmacSecret, "", claimsAt(""))
	for _, text := range []string{"", ".", "..", "...", "a.b", "a.b.c.d", good + ".", "." + good, good + "\n", "\n" + good, good[:20] + "\r\n" + good[20:], good + "=", good + " ",
		strings.Replace(good, ".", "..", 1), strings.ReplaceAll(good, ".", "+"), "é" + good, good + "\x00", `{"payload":"","protected":"","signature":""}`} {
		expect(t, v, text, Unauthorized, "")
	}
	huge := sign(t, "HS256", hmacSecret, "", claimsAt(`,"x":"`+strings.Repeat("x", 64<<10)+`"`))
	expect(t, v, huge, Unauthorized, "more than 16384 bytes")
	if n := testing.AllocsPerRun(10, func() { v.Verify(huge, moment) }); n > 10 {
		t.Errorf("a huge token costs %v allocations", n)
	}
	fits := sign(t, "HS256", hmacSecret, "", claimsAt(`,"x":"`+strings.Repeat("x", 11<<10)+`"`))
	if _, err := v.Verify(fits, moment); err != nil || len(fits) < 15_000 {
		t.Errorf("%d bytes: %v", len(fits), err)
	}
	nested := sign(t, "HS256", hmacSecret, "", claimsAt(`,"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)))
	if _, err := v.Verify(nested, moment); err != nil {
		t.Errorf("nested claims of others: %v", err)
	}
}

// Times, issuer and audience are held against the settings; expired is said only of tokens that are good in all else.
func TestVerifyClaims(t *testing.T) {
	v := verifier(t, all(t))
	now := moment.Unix()
	for _, c := range []struct {
		claims  string
		refusal Refusal
		want    string // empty: good
	}{
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":"chat"`, now+1), 0, ""},
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":"chat"`, now-9), 0, ""},
		{fmt.Sprintf(`"exp":%d.5,"iss":"me","aud":"chat"`, now-10), 0, ""},
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":"chat"`, now-10), Expired, "expired"},
		{`"exp":1,"iss":"me","aud":"chat"`, Expired, "expired"},
		{`"exp":1,"iss":"other","aud":"chat"`, Unauthorized, "iss"},
		{`"exp":1,"iss":"me","aud":"other"`, Unauthorized, "aud"},
		{fmt.Sprintf(`"exp":1,"iss":"me","aud":"chat","iat":%d`, now+11), Unauthorized, "iat"},
		{fmt.Sprintf(`"exp":%d,"iss":"Me","aud":"chat"`, now+9), Unauthorized, "iss"},
		{fmt.Sprintf(`"exp":%d,"aud":"chat"`, now+9), Unauthorized, "iss"},
		{fmt.Sprintf(`"exp":%d,"iss":"me"`, now+9), Unauthorized, "aud"},
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":[]`, now+9), Unauthorized, "aud"},
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":["x","chatty"]`, now+9), Unauthorized, "aud"},
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":["x","chat"]`, now+9), 0, ""},
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":"chat","iat":%d`, now+99, now+10), 0, ""},
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":"chat","iat":%d`, now+99, now+11), Unauthorized, "iat is in the future"},
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":"chat","nbf":%d`, now+99, now+10), 0, ""},
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":"chat","nbf":%d`, now+99, now+11), Unauthorized, "nbf is in the future"},
		{`"iss":"me","aud":"chat"`, Unauthorized, "exp is missing"},
		{fmt.Sprintf(`"exp":%d,"iss":"me","aud":"chat","parley":{"join":%s}`, now+9, quoted(1000, "a")), Unauthorized, "1000 entries"},
	} {
		token := sign(t, "HS256", hmacSecret, "", `{"sub":"42",`+c.claims+`}`)
		if c.want != "" {
			expect(t, v, token, c.refusal, c.want)
		} else if _, err := v.Verify(token, moment); err != nil {
			t.Errorf("%s: %v", c.claims, err)
		}
	}
	many := sign(t, "HS256", hmacSecret, "", claimsAt(`,"parley":{"join":`+quoted(10_000, "a")+`}`))
	expect(t, v, many, Unauthorized, "more than 16384 bytes")
	if (Expired).Code() != "token_expired" || (Unauthorized).Code() != "unauthorized" || (Unavailable).Code() != "unavailable" || (KeyUnknown).Code() != "unavailable" {
		t.Error("a code is wrong")
	}
}

// The kid chooses the key; without one, few keys are tried.
func TestVerifyKid(t *testing.T) {
	payload := claimsAt("")
	v := verifier(t, Options{File: keyFile(t, []byte(jwks(jwk(t, "P-256", "a", ""), jwk(t, "P-256 other", "b", ""), jwk(t, "RSA", "a", ""))))})
	for name, kid := range map[string]string{"P-256": "a", "P-256 other": "b"} {
		for _, k := range []string{kid, ""} {
			if _, err := v.Verify(sign(t, "ES256", pairs()[name], k, payload), moment); err != nil {
				t.Errorf("%s, kid %q: %v", name, k, err)
			}
		}
	}
	if _, err := v.Verify(sign(t, "RS256", pairs()["RSA"], "a", payload), moment); err != nil {
		t.Errorf("two kinds under one kid: %v", err)
	}
	expect(t, v, sign(t, "ES256", pairs()["P-256"], "b", payload), Unauthorized, "the signature is wrong")
	expect(t, v, sign(t, "ES256", pairs()["P-256"], "c", payload), Unauthorized, "no key fits")
	var keys []string
	for i := range keysTriedMax {
		keys = append(keys, jwk(t, "P-256 other", fmt.Sprint(i), ""))
	}
	v = verifier(t, Options{File: keyFile(t, []byte(jwks(append(keys, jwk(t, "P-256", "last", ""))...)))})
	expect(t, v, sign(t, "ES256", pairs()["P-256"], "", payload), Unauthorized, "more than 8 keys")
	if _, err := v.Verify(sign(t, "ES256", pairs()["P-256"], "last", payload), moment); err != nil {
		t.Error(err)
	}
}

// Options that cannot work, or would be weak, are refused with a sentence [RFC 7518 §3.2].
func TestVerifierOptions(t *testing.T) {
	file := keyFile(t, publicPEM(t, "RSA"))
	for want, o := range map[string]Options{
		"neither":             {},
		"31 bytes":            {Secret: hmacSecret[:31]},
		"0 bytes":             {Secret: []byte{}},
		"demand an audience":  {URL: &KeyURL{}},
		`"none" is not known`: {Secret: hmacSecret, Algorithms: one("none")},
		`"hs256" is not`:      {Secret: hmacSecret, Algorithms: one("hs256")},
		"needs public keys":   {Secret: hmacSecret, Algorithms: one("RS256")},
		"needs a secret, and": {File: file, Algorithms: one("HS256")},
		"at least 48":         {Secret: hmacSecret[:47], Algorithms: one("HS384")},
		"at least 64":         {Secret: hmacSecret[:63], Algorithms: one("HS512")},
		"list of algorithms":  {File: file, Algorithms: []string{}},
		"leeway":              {File: file, Leeway: time.Hour},
		"leeway is":           {File: file, Leeway: -1},
		"meaning of its own":  {File: file, Claim: "aud"},
	} {
		if _, err := NewVerifier(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// Whatever the token, an error is a TokenError, and claims come only with our signature.
func FuzzVerify(f *testing.F) {
	v := verifier(f, all(f))
	for algorithm, signer := range signers() {
		f.Add(sign(f, algorithm, signer, "k", claimsAt("")))
	}
	f.Add(forge(`{"alg":"HS256","crit":["x"]}`, claimsAt(""), hmacSecret))
	good := map[string]bool{}
	for algorithm, signer := range signers() {
		good[strings.SplitN(sign(f, algorithm, signer, "k", claimsAt("")), ".", 3)[1]] = true
	}
	f.Fuzz(func(t *testing.T, token string) {
		c, err := v.Verify(token, moment)
		var refused *TokenError
		if err != nil && (c != nil || !errors.As(err, &refused) || refused.Problem == "") {
			t.Errorf("%q: %v", token, err)
		}
		if err == nil && !good[strings.Split(token, ".")[1]] {
			t.Errorf("%q is good", token)
		}
	})
}

// One verification, claims included.
func BenchmarkVerify(b *testing.B) {
	v := verifier(b, all(b))
	for _, algorithm := range []string{"HS256", "ES256", "RS256", "EdDSA"} {
		token := sign(b, algorithm, signers()[algorithm], "k", claimsAt(`,"parley":{"join":["chat:*","user:42"],"publish":["chat:*"],"auto":["user:42"],"attributes":{"name":"Ann"}}`))
		b.Run(algorithm, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := v.Verify(token, moment); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
