package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/spf13/cobra"

	"github.com/parleyd/parley/engine/access"
)

// newToken makes tokens for clients: to try a server out, and for scripts. A backend makes its own.
func newToken() *cobra.Command {
	var t tokenFlags
	cmd := &cobra.Command{
		Use:   "token --user U",
		Short: "Make a token for a client, signed with the secret of jwt_secret_file",
		Long: "Make a token for a client, signed with the secret of jwt_secret_file (HS256). Issuer, audience and claim follow from\n" +
			"the settings that serve reads.",
		Example: "  parley token --user 42 --join 'chat:*' --publish 'chat:*' --for 1h",
		Args:    knownVerb,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, _, err := load(cmd)
			if err != nil {
				return err
			}
			text, err := t.sign(s, time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	addFlags(cmd)
	t.flags(cmd)
	cmd.AddCommand(newTokenCheck())
	return cmd
}

// tokenFlags say what a token allows.
//
// Owner: the command.
type tokenFlags struct {
	user                         string
	join, publish, members, auto []string
	life                         time.Duration
}

func (t *tokenFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.user, "user", "", "the token is for this user, 1 to 128 bytes")
	cmd.Flags().StringSliceVar(&t.join, "join", nil, "the client may join rooms that match these patterns ('chat:*')")
	cmd.Flags().StringSliceVar(&t.publish, "publish", nil, "the client may publish to rooms that match these patterns")
	cmd.Flags().StringSliceVar(&t.members, "members", nil, "the client may list the members of rooms that match these patterns; by default those of --join")
	cmd.Flags().StringSliceVar(&t.auto, "auto", nil, "the connection enters these rooms at once")
	cmd.Flags().DurationVar(&t.life, "for", time.Hour, "the token is valid for this long")
}

func (t *tokenFlags) sign(s *settings, now time.Time) (string, error) {
	if s.JWTSecretFile == "" {
		return "", usageError{errors.New("jwt_secret_file is not set: parley signs with the secret that the server verifies with; write one with `openssl rand -base64 48`")}
	}
	secret, err := access.ReadSecret(s.JWTSecretFile)
	if err != nil {
		return "", usageError{fmt.Errorf("jwt_secret_file: %w", err)}
	}
	own := map[string][]string{"join": t.join, "publish": t.publish}
	if t.members != nil {
		own["members"] = t.members
	}
	if t.auto != nil {
		own["auto"] = t.auto
	}
	for name, list := range own {
		if list == nil {
			own[name] = []string{}
		}
	}
	claims := map[string]any{"sub": t.user, "iat": now.Unix(), "exp": now.Add(t.life).Unix(), "jti": rand.Text(), s.JWTClaim: own}
	if s.JWTIssuer != "" {
		claims["iss"] = s.JWTIssuer
	}
	if s.JWTAudience != "" {
		claims["aud"] = s.JWTAudience
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("encode claims: %w", err)
	}
	if _, err := access.ParseClaims(payload, s.JWTClaim); err != nil {
		return "", usageError{fmt.Errorf("the server would refuse this token: %w", err)}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: secret}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed.CompactSerialize()
}

// newTokenCheck says what a server with these settings would make of a token.
func newTokenCheck() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "check TOKEN",
		Short: "Say whether a server with these settings accepts a token, and what the token allows; - reads it from standard input",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("token check takes one token, or - for standard input")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, _, err := load(cmd)
			if err != nil {
				return err
			}
			if s.Auth == "off" {
				return usageError{errors.New("auth is off, so the server looks at no token; set auth to required or optional")}
			}
			text := args[0]
			if text == "-" {
				raw, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), access.TokenBytesMax+1))
				if err != nil {
					return fmt.Errorf("read token: %w", err)
				}
				text = string(raw)
			}
			v, _, err := s.verifier(true)
			if err != nil {
				return usageError{err}
			}
			claims, err := v.VerifyWait(cmd.Context(), strings.TrimSpace(text), time.Now())
			if err != nil {
				return exitError{exitFailed, fmt.Errorf("the token is refused: %w", err)}
			}
			return showClaims(cmd.OutOrStdout(), claims, asJSON)
		},
	}
	addFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func showClaims(to io.Writer, c *access.Claims, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(to).Encode(map[string]any{"user": c.User, "id": c.ID, "expires": c.Expires, "auto": c.Auto, "attributes": c.Attributes})
	}
	_, err := fmt.Fprintf(to, "user %s, good until %s (%s)\n", c.User, c.Expires.Format(time.RFC3339), time.Until(c.Expires).Round(time.Second))
	if err == nil && len(c.Auto) > 0 {
		_, err = fmt.Fprintf(to, "enters %s at once\n", strings.Join(c.Auto, ", "))
	}
	return err
}
