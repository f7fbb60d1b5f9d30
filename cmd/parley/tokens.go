package main

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/parleyd/parley/engine"
	"github.com/parleyd/parley/engine/access"
	"github.com/parleyd/parley/engine/cluster"
	"github.com/parleyd/parley/engine/cluster/supervise"
)

// Tokens of clients, and the rules about rooms.

// ruleText is an entry of the section rooms, as it is written.
//
// Owner: the caller.
type ruleText struct {
	Match   string `yaml:"match"`
	Join    words  `yaml:"join"`
	Publish words  `yaml:"publish"`
	Members words  `yaml:"members"`
	History words  `yaml:"history"`
}

// words is one word, or a list of them.
type words []string

// UnmarshalYAML takes a word for a list of one.
func (w *words) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		var one string
		if err := n.Decode(&one); err != nil {
			return err
		}
		*w = words{one}
		return nil
	}
	return n.Decode((*[]string)(w))
}

// placedRule is a rule with the place of each of its fields.
type placedRule struct {
	access.Entry
	where map[string]string
}

func readRules(path string, n *yaml.Node) (list []placedRule, mistakes []error) {
	if n.Kind != yaml.SequenceNode {
		return nil, []error{fmt.Errorf("%s:%d: rooms: it is a list of rules: - {match: \"chat:*\", join: users, publish: members}", path, n.Line)}
	}
	list = []placedRule{}
	for _, entry := range n.Content {
		var text ruleText
		r := placedRule{where: map[string]string{}}
		mistakes = append(mistakes, decodeEntry(path, entry, &text, r.where)...)
		r.Entry = access.Entry{Match: text.Match, Join: text.Join, Publish: text.Publish, Members: text.Members, History: text.History}
		list = append(list, r)
	}
	return list, mistakes
}

// gatherRules checks the rules.
func (s *settings) gatherRules(list []placedRule) []error {
	s.Rules = nil
	for _, r := range list {
		s.Rules = append(s.Rules, r.Entry)
	}
	_, err := access.ParseRules(s.Rules, s.authMode())
	var wrong *access.EntryError
	if errors.As(err, &wrong) {
		at := list[wrong.Index].where
		place := at[wrong.Field]
		if place == "" {
			place = at[""]
		}
		return []error{fmt.Errorf("%s: rooms: %s: %s", place, wrong.Field, wrong.Problem)}
	}
	if err != nil {
		return []error{err}
	}
	return nil
}

func (s *settings) authMode() access.Auth {
	return map[string]access.Auth{"optional": access.Optional, "required": access.Required}[s.Auth]
}

// checkTokens reports the first setting of tokens that cannot work.
func (s *settings) checkTokens() error {
	wrong := func(key, format string, a ...any) error {
		return &engine.ConfigError{Key: key, Hint: fmt.Sprintf(format, a...)}
	}
	if s.Auth == "off" {
		for key, given := range map[string]bool{"jwt_secret_file": s.JWTSecretFile != "", "jwt_keys_file": s.JWTKeysFile != "",
			"jwt_jwks_url": s.JWTJWKSURL != "", "jwt_algorithms": len(s.JWTAlgorithms) > 0, "jwt_cookie": s.JWTCookie != ""} {
			if given {
				return wrong(key, "auth is off, so that no token is looked at; set auth to optional or required")
			}
		}
		return nil
	}
	switch {
	case s.JWTSecretFile == "" && s.JWTKeysFile == "" && s.JWTJWKSURL == "":
		return wrong("auth", "tokens are verified with a secret or with keys: name a file in jwt_secret_file or jwt_keys_file, or a URL in jwt_jwks_url")
	case s.JWTCookie != "" && (len(s.Origins) == 0 || slices.Contains(s.Origins, "*")):
		return wrong("jwt_cookie", "browsers send cookies for pages of every site: list your pages in origins")
	}
	_, key, err := s.verifier(false)
	if err != nil {
		return wrong(key, "%v", err)
	}
	return nil
}

// keepTokens takes the settings of tokens from others, which are in force.
func (s *settings) keepTokens(from *settings) {
	s.Auth, s.JWTSecretFile, s.JWTKeysFile, s.JWTJWKSURL = from.Auth, from.JWTSecretFile, from.JWTKeysFile, from.JWTJWKSURL
	s.JWTAlgorithms, s.JWTIssuer, s.JWTAudience, s.JWTClaim = from.JWTAlgorithms, from.JWTIssuer, from.JWTAudience, from.JWTClaim
	s.JWTLeeway, s.JWTGrace, s.JWTCookie, s.JWTQuery = from.JWTLeeway, from.JWTGrace, from.JWTCookie, from.JWTQuery
}

// verifier makes what verifies tokens; open begins to read keys at a URL. key names the setting at fault.
func (s *settings) verifier(open bool) (v *access.Verifier, key string, err error) {
	o := access.Options{Algorithms: s.JWTAlgorithms, Issuer: s.JWTIssuer, Audience: s.JWTAudience, Claim: s.JWTClaim, Leeway: s.JWTLeeway}
	if s.JWTSecretFile != "" {
		if o.Secret, err = access.ReadSecret(s.JWTSecretFile); err != nil {
			return nil, "jwt_secret_file", err
		}
	}
	if s.JWTKeysFile != "" {
		if o.File, err = access.OpenKeyFile(s.JWTKeysFile); err != nil {
			return nil, "jwt_keys_file", err
		}
	}
	if s.JWTJWKSURL != "" {
		switch err = access.CheckKeyURL(s.JWTJWKSURL); {
		case err != nil:
		case s.keyURL != nil:
			o.URL = s.keyURL
		case open:
			s.keyURL, err = access.OpenKeyURL(s.JWTJWKSURL)
			o.URL = s.keyURL
		default:
			o.URL = new(access.KeyURL) // only its presence is looked at
		}
		if err != nil {
			return nil, "jwt_jwks_url", err
		}
	}
	if v, err = access.NewVerifier(o); err == nil {
		return v, "", nil
	}
	key = "jwt_algorithms"
	if wrong, ok := errors.AsType[*access.OptionError](err); ok {
		key = map[string]string{"Audience": "jwt_audience", "Leeway": "jwt_leeway", "Claim": "jwt_claim"}[wrong.Field]
	}
	return nil, key, err
}

// serving reports whether this process has clients, or acts for backends.
func (s *settings) serving() bool {
	role := supervise.Role()
	return role == supervise.RoleWorker || role == supervise.RoleAPI || cluster.Parent() && s.Processes == 1
}

// guard makes the guard of this process; nil if the process has no clients, or lets every client do everything.
func (s *settings) guard(log *slog.Logger) (*access.Guard, error) {
	if !s.serving() || s.Auth == "off" && len(s.Rules) == 0 {
		return nil, nil
	}
	o := access.GuardOptions{Auth: s.authMode(), Rules: s.Rules, Grace: s.JWTGrace, Cookie: s.JWTCookie, Query: s.JWTQuery, Log: log}
	if s.Auth != "off" {
		var err error
		if o.Verifier, _, err = s.verifier(true); err != nil {
			return nil, err
		}
	}
	if s.DataDir != "" {
		o.File = filepath.Join(s.DataDir, "revocations")
	}
	o.Keeper = s.Processes == 1 || supervise.Role() == supervise.RoleAPI
	return access.NewGuard(o)
}

// adoptRules takes the rules of a reload, and reads the files of secrets and keys again. What is wrong stays as it was. Keys at
// a URL are read again anyhow.
func (b *backends) adoptRules(rules []access.Entry) {
	b.settings.Rules = rules
	if b.guard == nil && len(rules) > 0 && b.settings.serving() { // auth is off, and there was no rule
		if guard, err := access.NewGuard(access.GuardOptions{Log: b.log}); err == nil {
			b.guard = guard
			guard.Install(b.server)
		}
	}
	if b.guard == nil {
		return
	}
	var verifier *access.Verifier
	if b.settings.Auth != "off" {
		var err error
		if verifier, _, err = b.settings.verifier(true); err != nil {
			b.log.Error("the new keys of tokens cannot be used, and the old ones stay", "err", err)
		}
	}
	if err := b.guard.Change(verifier, rules); err != nil {
		b.log.Error("the new rules of rooms cannot be used, and the old ones stay", "err", err) // the parent has parsed them
	}
}
