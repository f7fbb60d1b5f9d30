package access

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"

	jose "github.com/go-jose/go-jose/v4"
	strict "github.com/go-jose/go-jose/v4/json"
)

// Bounds of key sets and secrets.
const (
	keysBytesMax   = 1 << 20
	keysMax        = 100
	keysTriedMax   = 8 // for one token
	secretBytesMin = 32
	secretBytesMax = 4096
	rsaBitsMin     = 2048
	rsaBitsMax     = 8192 // a larger one costs too much for each token
	kidBytesMax    = 255
)

// kind is the type of a key, with its curve. An algorithm belongs to exactly one kind.
type kind uint8

const (
	noKind kind = iota
	secret
	shortCurve
	middleCurve
	longCurve
	rsaKey
	edKey
)

// algorithms are all that the settings may name, with the kind of key that each needs. The algorithm none is not here.
var algorithms = map[string]kind{
	"HS256": secret, "HS384": secret, "HS512": secret,
	"ES256": shortCurve, "ES384": middleCurve, "ES512": longCurve,
	"RS256": rsaKey, "RS384": rsaKey, "RS512": rsaKey,
	"PS256": rsaKey, "PS384": rsaKey, "PS512": rsaKey,
	"EdDSA": edKey,
}

// key verifies signatures of one kind.
//
// Owner: immutable after ParseKeys.
type key struct {
	kind   kind
	kid    string // empty: it fits every kid
	only   string // the one algorithm that the key is for; empty: all of its kind
	public any    // as the library takes it
}

func (k *key) fits(algorithm, kid string) bool {
	return k.kind == algorithms[algorithm] && (k.only == "" || k.only == algorithm) && (k.kid == "" || kid == "" || k.kid == kid)
}

// KeySet is a set of public keys. Owner: immutable after ParseKeys.
type KeySet struct {
	keys    []key
	skipped []string
}

// Len is the number of keys that can verify a token.
func (s *KeySet) Len() int { return len(s.keys) }

// Skipped says of each key that was left out why.
func (s *KeySet) Skipped() []string { return s.skipped }

// find returns the keys that fit, and whether it left out any because there are too many.
func (s *KeySet) find(algorithm, kid string) (fit []*key, more bool) {
	if s == nil {
		return nil, false
	}
	for i := range s.keys {
		if !s.keys[i].fits(algorithm, kid) {
			continue
		}
		if len(fit) == keysTriedMax {
			return fit, true
		}
		fit = append(fit, &s.keys[i])
	}
	return fit, false
}

// errPrivate: a set that verifies needs no private key, and a private key in it is a leak.
var errPrivate = errors.New("a private or secret key is in the set; write its public key there (openssl pkey -pubout), and make a new pair, since this one may have been read by others")

// ParseKeys reads public keys: PEM blocks "PUBLIC KEY" and "RSA PUBLIC KEY", or a JWK set. Keys of a JWK set that cannot
// verify tokens here (another type or curve, for encryption, too weak) are left out, as RFC 7517 wants it; in PEM they are errors. A private
// key anywhere is an error. At most 100 keys and 1 MiB. Any goroutine.
func ParseKeys(text []byte) (*KeySet, error) {
	if len(text) > keysBytesMax {
		return nil, fmt.Errorf("the set has more than %d bytes", keysBytesMax)
	}
	var (
		s   = &KeySet{}
		err error
	)
	if isObject(text) {
		err = s.parseJWKs(text)
	} else {
		err = s.parsePEM(text)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (s *KeySet) parseJWKs(text []byte) error {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	// encoding/json bounds the depth, which the parser that refuses duplicate names does not.
	if !json.Valid(text) || strict.Unmarshal(text, &set) != nil {
		return errors.New("the set is not valid JSON, or names a field twice")
	}
	if set.Keys == nil {
		return errors.New(`the set has no list "keys"; a single key stands in such a list, too`)
	}
	if len(set.Keys) > keysMax {
		return fmt.Errorf("the set has %d keys: %d are allowed", len(set.Keys), keysMax)
	}
	for i, raw := range set.Keys {
		k, err := parseJWK(raw)
		if errors.Is(err, errPrivate) {
			return fmt.Errorf("key %d: %w", i, err)
		}
		if err != nil {
			s.skipped = append(s.skipped, fmt.Sprintf("key %d: %v", i, err))
			continue
		}
		s.keys = append(s.keys, k)
	}
	return nil
}

// privateFields are the fields of a JWK that only its owner may know.
var privateFields = []string{"d", "k", "p", "q", "dp", "dq", "qi", "oth", "priv"}

func parseJWK(raw json.RawMessage) (key, error) {
	var all map[string]json.RawMessage
	if err := strict.Unmarshal(raw, &all); err != nil {
		return key{}, errors.New("it is not an object, or names a field twice")
	}
	for _, name := range privateFields {
		if _, private := all[name]; private {
			return key{}, errPrivate
		}
	}
	// The library would parse certificates, which nothing here uses.
	for name := range all {
		if strings.HasPrefix(name, "x5") {
			delete(all, name)
		}
	}
	plain, err := json.Marshal(all)
	if err != nil {
		return key{}, err
	}
	var parsed jose.JSONWebKey
	if err := parsed.UnmarshalJSON(plain); err != nil {
		return key{}, errors.New("its type or curve is not known, or a member of it is missing or wrong")
	}
	if parsed.Use != "" && parsed.Use != "sig" {
		return key{}, errors.New("it is not for signatures")
	}
	if raw := all["key_ops"]; raw != nil {
		if ops, err := parseTexts(raw, 16); err != nil || !slices.Contains(ops, "verify") {
			return key{}, errors.New("it is not for verifying")
		}
	}
	if len(parsed.KeyID) > kidBytesMax {
		return key{}, errors.New("its kid is too long")
	}
	k, err := newKey(parsed.Key)
	if err != nil {
		return key{}, err
	}
	k.kid, k.only = parsed.KeyID, parsed.Algorithm
	if k.only != "" && algorithms[k.only] != k.kind {
		return key{}, errors.New("its alg is not one for a key of its type")
	}
	return k, nil
}

// newKey fixes the kind of a public key.
func newKey(public any) (key, error) {
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		for kind, curve := range map[kind]elliptic.Curve{shortCurve: elliptic.P256(), middleCurve: elliptic.P384(), longCurve: elliptic.P521()} {
			if p.Curve == curve {
				return key{kind: kind, public: p}, nil
			}
		}
		return key{}, errors.New("its curve is none of P-256, P-384 and P-521")
	case *rsa.PublicKey:
		if bits := p.N.BitLen(); bits < rsaBitsMin || bits > rsaBitsMax {
			return key{}, fmt.Errorf("it has %d bits: RSA keys have from %d to %d", bits, rsaBitsMin, rsaBitsMax)
		}
		if p.E < 3 || p.E%2 == 0 {
			return key{}, errors.New("its exponent is even or less than 3")
		}
		return key{kind: rsaKey, public: p}, nil
	case ed25519.PublicKey:
		return key{kind: edKey, public: p}, nil
	}
	return key{}, errors.New("its type is none of RSA, EC and Ed25519")
}

func (s *KeySet) parsePEM(text []byte) error {
	blocks := bytes.Count(text, []byte("-----BEGIN "))
	if blocks == 0 {
		return errors.New("neither PEM blocks nor a JWK set are in it")
	}
	if blocks > keysMax {
		return fmt.Errorf("%d PEM blocks: %d are allowed", blocks, keysMax)
	}
	for i := range blocks {
		var block *pem.Block
		// Decode passes over a block that is damaged: then it finds fewer than there are beginnings.
		if block, text = pem.Decode(text); block == nil {
			return fmt.Errorf("only %d of %d PEM blocks can be read", i, blocks)
		}
		k, err := parseBlock(block)
		if err != nil {
			return fmt.Errorf("key %d: %w", i, err)
		}
		s.keys = append(s.keys, k)
	}
	return nil
}

func parseBlock(block *pem.Block) (key, error) {
	var (
		public any
		err    error
	)
	switch {
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return key{}, errPrivate
	case block.Type == "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case block.Type == "CERTIFICATE":
		return key{}, errors.New("it is a certificate; write its public key there (openssl x509 -pubkey -noout)")
	default:
		return key{}, fmt.Errorf("a block %.40q is no public key", block.Type)
	}
	if err != nil {
		return key{}, errors.New("it cannot be read as a public key")
	}
	return newKey(public)
}

// KeyFile is a file of public keys that can be read again while tokens are verified. Owner: shared (an atomic pointer).
type KeyFile struct {
	path    string
	current atomic.Pointer[KeySet]
}

// OpenKeyFile reads a file of keys, at least one of which can verify tokens. Its errors name the file.
func OpenKeyFile(path string) (*KeyFile, error) {
	f := &KeyFile{path: path}
	if err := f.Reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// Reload reads the file again. After an error the former keys go on. It blocks while it reads. Any goroutine.
func (f *KeyFile) Reload() error {
	text, err := readBounded(f.path, keysBytesMax)
	if err != nil {
		return err
	}
	s, err := ParseKeys(text)
	if err == nil && len(s.skipped) > 0 {
		err = errors.New(s.skipped[0])
	}
	if err == nil && s.Len() == 0 {
		err = errors.New("the set has no keys")
	}
	if err != nil {
		return fmt.Errorf("read keys of %s: %w", f.path, err)
	}
	f.current.Store(s)
	return nil
}

// Keys are the keys that the file had when it was last read without an error. Any goroutine.
func (f *KeyFile) Keys() *KeySet { return f.current.Load() }

// ReadSecret reads the secret for HS256 from a file. One end of line at its end, as editors write it, is not part of the
// secret; a secret of random bytes that ends with a line feed loses that byte, so write secrets as text. Shorter than 32
// bytes, or a key in PEM or JSON, is an error: a public key is no secret.
func ReadSecret(path string) ([]byte, error) {
	text, err := readBounded(path, secretBytesMax)
	if err != nil {
		return nil, err
	}
	if trimmed, found := bytes.CutSuffix(text, []byte("\n")); found {
		text = bytes.TrimSuffix(trimmed, []byte("\r"))
	}
	if err = checkSecret(text); err != nil {
		return nil, fmt.Errorf("read secret of %s: %w", path, err)
	}
	return text, nil
}

func checkSecret(text []byte) error {
	switch {
	case bytes.Contains(text, []byte("-----BEGIN ")), isObject(text) && json.Valid(text):
		return errors.New("it is a key in PEM or JSON: write public keys into the file of jwt_keys_file")
	case len(text) < secretBytesMin:
		return fmt.Errorf("it has %d bytes, and at least %d are needed: write one with openssl rand -base64 48", len(text), secretBytesMin)
	case len(bytes.Trim(text, string(text[:1]))) == 0:
		return errors.New("all its bytes are the same: write one with openssl rand -base64 48")
	}
	return nil
}

// readBounded reads a file of at most so many bytes.
func readBounded(path string, bytesMax int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, bytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	if int64(len(text)) > bytesMax {
		return nil, fmt.Errorf("read keys of %s: it has more than %d bytes", path, bytesMax)
	}
	return text, nil
}
