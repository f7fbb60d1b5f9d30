package client

import (
	"github.com/spf13/cobra"

	"github.com/parleyd/parley/engine/api"
)

// openAPI prints the description of the API: this version's, or a running server's.
func (l Local) openAPI() *cobra.Command {
	r := remote{local: l}
	cmd := &cobra.Command{
		Use:     "openapi",
		Short:   "Print the OpenAPI description of the HTTP API: of this version, or with --url of a running server",
		Example: "  parley openapi > openapi.json",
		Args:    l.NoArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text := api.Description()
			if r.url != "" {
				at, err := r.place(cmd)
				if err != nil {
					return err
				}
				if text, err = at.get(cmd.Context(), "/openapi.json", nil); err != nil {
					return err
				}
			}
			_, err := cmd.OutOrStdout().Write(text)
			return err
		},
	}
	r.flags(cmd)
	return cmd
}
