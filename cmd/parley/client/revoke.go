package client

import (
	"errors"

	"github.com/spf13/cobra"
)

// revoke makes tokens of clients good no more.
func (l Local) revoke() *cobra.Command {
	r := remote{local: l}
	user, jti, undo := "", "", false
	cmd := &cobra.Command{
		Use:   "revoke --user U | --jti J",
		Short: "Revoke a user's tokens, or one token, and close the connections that use them",
		Long: "Revoke the tokens that a user has got until now, or the one token with a jti, on all workers, and close the connections that\n" +
			"use them (4001). Tokens that the user gets from now on are valid. --undo takes a revocation back.",
		Example: "  parley revoke --user 42",
		Args:    l.NoArguments,
		RunE: r.with(func(cmd *cobra.Command, at *place, _ []string) error {
			if (user == "") == (jti == "") {
				return Error{Usage, errors.New("say which tokens: with --user or with --jti")}
			}
			body := object(nil)
			if user != "" {
				body = body.text("user", user)
			} else {
				body = body.text("jti", jti)
			}
			if undo {
				return r.carryOut(cmd, at, action{"/v1/tokens/unrevoke", body.end(), func(*outcome) string { return "the revocation is taken back" }})
			}
			return r.carryOut(cmd, at, action{"/v1/tokens/revoke", body.end(), saysClosed})
		}),
	}
	r.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&user, "user", "", "revoke the tokens that this user has got until now")
	f.StringVar(&jti, "jti", "", "revoke the one token with this jti")
	f.BoolVar(&undo, "undo", false, "take the revocation back")
	return cmd
}
