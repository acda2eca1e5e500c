package cmd

import (
	"context"
	"io"
	"net"

	"github.com/spf13/cobra"

	"easel/backend"
	"easel/backend/keeper"
)

// dialStdioCmd is `easel dial-stdio`: the far end of --host.
func (a *app) dialStdioCmd() *cobra.Command {
	var start bool
	c := &cobra.Command{
		Use: "dial-stdio", Short: "Copy bytes between standard input and output and the engine (for --host)", Hidden: true,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.host != "" && c.Flags().Changed("host") {
				return usageError(c, "dial-stdio works on this box only, not with --host")
			}
			ctx, stop := interruptible(c)
			defer stop()
			if start {
				if _, err := a.startEngine(ctx); err != nil {
					return err
				}
			}
			conn, err := keeper.Dial(ctx, a.stateDir())
			if err != nil {
				return &exit{code: codeUnavailable, kind: backend.FailEngineDown, message: err.Error(), cause: err, hints: []string{"`easel serve --detach` over there starts one"}}
			}
			return splice(ctx, conn, a.in, a.out)
		},
	}
	c.Flags().BoolVar(&start, "start", false, "start an engine when none runs")
	return c
}

// splice copies in both directions until the engine's side ends, or ctx does.
// The end of in is passed on, so that answers under way still arrive.
func splice(ctx context.Context, conn net.Conn, in io.Reader, out io.Writer) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	go func() {
		_, err := io.Copy(conn, in)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite()
			return
		}
		_ = conn.Close()
	}()
	if _, err := io.Copy(out, conn); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
