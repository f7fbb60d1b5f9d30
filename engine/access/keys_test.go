package access

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	jose "github.com/go-jose/go-jose/v4"
)

func privatePEM(t testing.TB, name string) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(pairs()[name])
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func privateJWK(t testing.TB, key any) string {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "p"})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Keys of all kinds are read from PEM and from JSON, each with its kind.
func TestKeysAreRead(t *testing.T) {
	want := []kind{shortCurve, middleCurve, longCurve, rsaKey, edKey}
	names := []string{"P-256", "P-384", "P-521", "RSA", "Ed25519"}
	var inJSON []string
	for _, name := range names {
		inJSON = append(inJSON, jwk(t, name, name, `,"use":"sig","key_ops":["verify"],"x5c":["not a certificate"]`))
	}
	rsaBlock := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(rsaPublic(t))})
	for text, kinds := range map[string][]kind{
		"a comment\n" + string(publicPEM(t, names...)) + "another\n": want,
		" \n" + jwks(inJSON...): want,
		string(rsaBlock):        {rsaKey},
	} {
		s, err := ParseKeys([]byte(text))
		if err != nil || s.Len() != len(kinds) || len(s.Skipped()) != 0 {
			t.Errorf("%v, %+v", err, s)
			continue
		}
		for i := range kinds {
			if s.keys[i].kind != kinds[i] {
				t.Errorf("key %d is of kind %d, want %d", i, s.keys[i].kind, kinds[i])
			}
		}
	}
}

// Sets that no verifier should have are refused as a whole, with a sentence.
func TestKeysRefused(t *testing.T) {
	good := string(publicPEM(t, "P-256"))
	block := func(typ, content string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: []byte(content)}))
	}
	for text, want := range map[string]string{
		"":                                  "neither",
		"hello":                             "neither",
		good + privatePEM(t, "RSA"):         "private or secret",
		block("RSA PRIVATE KEY", "x"):       "private or secret",
		block("EC PRIVATE KEY", "x"):        "private or secret",
		block("ENCRYPTED PRIVATE KEY", "x"): "private or secret",
		jwks(privateJWK(t, pairs()["RSA"])): "private or secret",
		jwks(jwk(t, "RSA", "a", ""), privateJWK(t, pairs()["P-256"])): "key 1: a private or secret",
		jwks(privateJWK(t, pairs()["Ed25519"])):                       "private or secret",
		jwks(privateJWK(t, hmacSecret)):                               "private or secret",
		jwks(`{"kty":"unknown","d":"x"}`):                             "private or secret",
		block("CERTIFICATE", "x"):                                     "certificate",
		block("PUBLIC KEY", "x"):                                      "cannot be read",
		block("SOMETHING", "x"):                                       "no public key",
		string(publicPEM(t, "RSA weak")):                              "1024 bits",
		string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 16000), E: 3})})): "16001 bits",
		string(pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: rsaPublic(t).N, E: 4})})):                         "exponent",
		string(publicPEM(t, "P-224")):             "curve",
		good + strings.Replace(good, "M", "!", 1): "only 1 of 2",
		good[:len(good)/2]:                        "only 0 of 1",
		strings.Repeat(good, 101):                 "101 PEM blocks",
		strings.Repeat(" ", keysBytesMax+1):       "more than",
		`{`:                                       "not valid JSON",
		`{}`:                                      "no list",
		`{"keys":null}`:                           "no list",
		`{"keys":7}`:                              "not valid",
		`{"keys":[],"keys":[]}`:                   "twice",
		jwk(t, "RSA", "a", ""):                    "no list",
		`{"keys":` + strings.Repeat("[", 1<<19):   "not valid",
		jwks(strings.Split(strings.Repeat("{} ", 100)+"{}", " ")...): "101 keys",
	} {
		if s, err := ParseKeys([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, %v, want %q", text, s, err, want)
		}
	}
}

// A key of a JWK set that cannot verify here is left out, and said; the others go on [RFC 7517 §5].
func TestKeysLeftOut(t *testing.T) {
	rsaJWK := jwk(t, "RSA", "a", "")
	for text, want := range map[string]string{
		`7`:             "not an object",
		`{}`:            "not known",
		`{"kty":"new"}`: "not known",
		`{"kty":"OKP","crv":"X25519","x":"AAAA"}`:      "not known",
		`{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}`: "wrong",
		`{"kty":"EC","crv":"P-256","x":"` + base64url(strings.Repeat("\x01", 32)) + `","y":"` + base64url(strings.Repeat("\x01", 32)) + `"}`: "wrong",
		`{"kty":"RSA","n":"` + base64url(strings.Repeat("\xff", 2000)) + `","e":"AQAB"}`:                                                     "wrong",
		strings.Replace(rsaJWK, `"AQAB"`, `"AQ"`, 1):                                                                                         "wrong",
		jwk(t, "RSA weak", "a", ""):                  "1024 bits",
		jwk(t, "RSA", "a", `,"use":"enc"`):           "not for signatures",
		jwk(t, "RSA", "a", `,"key_ops":["encrypt"]`): "not for verifying",
		jwk(t, "RSA", "a", `,"key_ops":7`):           "not for verifying",
		jwk(t, "RSA", "a", `,"alg":"ES256"`):         "alg",
		jwk(t, "RSA", "a", `,"alg":"HS256"`):         "alg",
		jwk(t, "RSA", "a", `,"alg":"none"`):          "alg",
		jwk(t, "RSA", "a", `,"kid":"b"`):             "twice",
		jwk(t, "RSA", strings.Repeat("k", 256), ""):  "too long",
	} {
		s, err := ParseKeys([]byte(jwks(text, jwk(t, "P-256", "b", ""))))
		if err != nil || s.Len() != 1 || len(s.Skipped()) != 1 || !strings.Contains(s.Skipped()[0], want) {
			t.Errorf("%.60s: %v, %+v, want %q", text, err, s, want)
		}
	}
}

// A file is read again as a whole or not at all.
func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if f, err := OpenKeyFile(path); err == nil || f != nil {
		t.Errorf("no file: %v", err)
	}
	write(string(publicPEM(t, "P-256")))
	f, err := OpenKeyFile(path)
	if err != nil || f.Keys().Len() != 1 {
		t.Fatal(err)
	}
	for _, bad := range []string{"", "x", jwks(), jwks(jwk(t, "RSA weak", "", "")), privatePEM(t, "RSA"), string(publicPEM(t, "P-256")) + "-----BEGIN ", strings.Repeat("x", keysBytesMax+1)} {
		write(bad)
		if err := f.Reload(); err == nil || !strings.Contains(err.Error(), path) || f.Keys().Len() != 1 {
			t.Errorf("%.40q: %v, %d keys", bad, err, f.Keys().Len())
		}
	}
	write(jwks(jwk(t, "P-256", "a", ""), jwk(t, "RSA", "b", "")))
	if err := f.Reload(); err != nil || f.Keys().Len() != 2 {
		t.Errorf("%v, %d keys", err, f.Keys().Len())
	}
}

// The end of a line is not part of a secret; what is short, or no secret, is refused with a sentence.
func TestSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	long := strings.Repeat("ab", 16)
	for text, want := range map[string]string{
		long: long, long + "\n": long, long + "\r\n": long, long + "\n\n": long + "\n", long + " \n": long + " ", long + "\r": long + "\r", "\x00" + long: "\x00" + long,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadSecret(path); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"": "0 bytes", "\n": "0 bytes", long[:31]: "31 bytes", long[:31] + "\n": "31 bytes", strings.Repeat("a", 64): "the same",
		string(publicPEM(t, "RSA")): "PEM or JSON", privatePEM(t, "RSA"): "PEM or JSON", jwks(jwk(t, "RSA", "", "")): "PEM or JSON", strings.Repeat("ab", 2049): "more than",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadSecret(path); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "abab") {
			t.Errorf("%.40q: %q, %v", text, got, err)
		}
	}
	if _, err := ReadSecret(path + "x"); err == nil {
		t.Error("a file that is not there was read")
	}
}

// Whatever the text, a set has only keys of known kinds, within the bounds.
func FuzzKeys(f *testing.F) {
	f.Add(publicPEM(f, "P-256", "Ed25519")) // RSA keys are long, which makes a fuzzer slow
	f.Add([]byte(jwks(jwk(f, "Ed25519", "a", ""), jwk(f, "P-256", "b", `,"alg":"ES256"`))))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseKeys(text)
		if err != nil {
			return
		}
		if s.Len() > keysMax {
			t.Errorf("%d keys", s.Len())
		}
		for _, k := range s.keys {
			if k.kind == noKind || k.kind == secret || k.kind > edKey || k.public == nil || k.only != "" && algorithms[k.only] != k.kind {
				t.Errorf("%q: %+v", text, k)
			}
		}
	})
}

// A key fits the algorithms of its kind alone, before the library sees it.
func TestKeysFitTheirKind(t *testing.T) {
	s, err := ParseKeys(publicPEM(t, "P-256", "P-384", "P-521", "RSA", "Ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"ES256", "ES384", "ES512", "RS256 RS384 RS512 PS256 PS384 PS512", "EdDSA"} {
		for algorithm := range algorithms {
			if got := s.keys[i].fits(algorithm, ""); got != slices.Contains(strings.Fields(want), algorithm) {
				t.Errorf("key %d fits %s: %v", i, algorithm, got)
			}
		}
		if s.keys[i].fits("none", "") || s.keys[i].fits("", "") {
			t.Errorf("key %d fits no algorithm", i)
		}
	}
}
