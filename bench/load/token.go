//go:build linux

package load

import (
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"time"
)

// signer makes tokens as a backend does for its users [RFC 7519]. A token is good for every room of the load.
//
// Owner: immutable.
type signer struct {
	secret []byte            // HS256
	key    *ecdsa.PrivateKey // ES256
	issued time.Time
}

// newSigner reads the key of the plan.
func newSigner(p *Plan) (*signer, error) {
	text, err := os.ReadFile(p.TokenKey)
	if err != nil {
		return nil, fmt.Errorf("read the key of tokens: %w", err)
	}
	s := &signer{secret: text, issued: time.Now()}
	if p.Tokens == "HS256" {
		return s, nil
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", p.TokenKey)
	}
	if s.key, err = x509.ParseECPrivateKey(block.Bytes); err != nil {
		return nil, fmt.Errorf("read the key of tokens: %w", err)
	}
	return s, nil
}

// token makes a token of a user, for an hour.
func (s *signer) token(user string) (string, error) {
	head := `{"alg":"HS256","typ":"JWT"}`
	if s.key != nil {
		head = `{"alg":"ES256","typ":"JWT"}`
	}
	claims := fmt.Sprintf(`{"sub":%q,"iat":%d,"exp":%d,"parley":{"join":["room-*"],"publish":["room-*"]}}`,
		user, s.issued.Unix(), s.issued.Add(time.Hour).Unix())
	text := base64.RawURLEncoding.EncodeToString([]byte(head)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	signature, err := s.sign([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), err
}

func (s *signer) sign(text []byte) ([]byte, error) {
	if s.key == nil {
		h := hmac.New(sha256.New, s.secret)
		h.Write(text)
		return h.Sum(nil), nil
	}
	sum := sha256.Sum256(text)
	x, y, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		return nil, fmt.Errorf("sign a token: %w", err)
	}
	signature := make([]byte, 64)
	x.FillBytes(signature[:32])
	y.FillBytes(signature[32:])
	return signature, nil
}

// prepareTokens makes the clients' tokens: each its own user, or all one. Signing is not a part of what is measured.
func (g *generator) prepareTokens() error {
	if g.plan.Tokens == "" {
		return nil
	}
	s, err := newSigner(&g.plan)
	if err != nil {
		return err
	}
	for i := range g.plan.clients() {
		user := "user-0"
		if !g.plan.OneUser {
			user = fmt.Sprint("user-", i)
		}
		token, err := s.token(user)
		if err != nil {
			return err
		}
		g.fields = append(g.fields, "Authorization: Bearer "+token+"\r\n")
	}
	return nil
}

// field is the header field with a client's token; empty: it has none.
func (g *generator) field(c *conn) string {
	if g.plan.Tokens == "" {
		return ""
	}
	return g.fields[c.index%len(g.fields)]
}
