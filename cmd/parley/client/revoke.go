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
		Short: "Make a user's tokens, or one token, good no more, and close the connections with them",
		Long: "Make the tokens that a user has got until now, or the one token with a jti, good no more, on all workers, and close the\n" +
			"connections with them (4001). Tokens that the user gets from now on are good. --undo takes a revocation back.",
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
	f.StringVar(&user, "user", "", "the tokens of this user")
	f.StringVar(&jti, "jti", "", "the token with this jti")
	f.BoolVar(&undo, "undo", false, "take the revocation back")
	return cmd
}
