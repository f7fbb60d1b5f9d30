package access

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// pairs are real keys of each kind. Those of curves are the same in every process, so that the processes of a fuzzer agree.
var pairs = sync.OnceValue(func() map[string]crypto.Signer {
	m := map[string]crypto.Signer{"Ed25519": ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))}
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521(), "P-256 other": elliptic.P256(), "P-224": elliptic.P224()} {
		scalar := bytes.Repeat([]byte{byte(len(name))}, (curve.Params().BitSize+7)/8)
		scalar[0] = 0
		key, err := ecdsa.ParseRawPrivateKey(curve, scalar)
		if err != nil {
			panic(err)
		}
		m[name] = key
	}
	m["RSA"], _ = rsa.GenerateKey(rand.Reader, 2048)
	m["RSA weak"], _ = rsa.GenerateKey(rand.Reader, 1024)
	return m
})

var hmacSecret = []byte("0123456789abcdefghijklmnopqrstuv-0123456789abcdefghijklmnopqrstuv")

// moment is when the tokens of these tests are looked at.
var moment = time.Unix(1_790_000_000, 0)

// claimsAt are the claims of a token that is good at the moment, and what is added to them.
func claimsAt(more string) string {
	return fmt.Sprintf(`{"sub":"42","exp":%d,"iat":%d,"iss":"me","aud":["chat"]%s}`, moment.Unix()+600, moment.Unix()-60, more)
}

// sign makes a token with the library. key is a secret or a pair.
func sign(t testing.TB, algorithm string, key any, kid, payload string) string {
	t.Helper()
	options := (&jose.SignerOptions{}).WithType("JWT")
	if kid != "" {
		options.WithHeader("kid", kid)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(algorithm), Key: key}, options)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign([]byte(payload))
	if err != nil {
		t.Fatal(err)
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func base64url(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// forge makes a token by hand, with any header, and signs it with HMAC.
func forge(header, payload string, secret []byte) string {
	text := base64url(header) + "." + base64url(payload)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return text + "." + base64url(string(mac.Sum(nil)))
}

func publicPEM(t testing.TB, names ...string) []byte {
	t.Helper()
	var b strings.Builder
	for _, name := range names {
		der, err := x509.MarshalPKIXPublicKey(pairs()[name].Public())
		if err != nil {
			t.Fatal(err)
		}
		pem.Encode(&b, &pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	return []byte(b.String())
}

// jwk is a public key in JSON, under a kid, and with more fields.
func jwk(t testing.TB, name, kid, more string) string {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKey{Key: pairs()[name].Public(), KeyID: kid})
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(text), "}") + more + "}"
}

func jwks(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

func rsaPublic(t testing.TB) *rsa.PublicKey {
	t.Helper()
	return pairs()["RSA"].Public().(*rsa.PublicKey)
}
