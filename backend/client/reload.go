package client

import (
	"context"
	"net/http"
)

// Reload asks the keeper to become the binary exe (an absolute path on the
// engine's box), running jobs untouched. It returns when the binary passed its
// trial and the change begins; an error means that nothing was changed.
func (c *Client) Reload(ctx context.Context, exe string) error {
	body := struct {
		Exe string `json:"exe"`
	}{exe}
	_, err := c.into(ctx, call{method: http.MethodPost, path: "/v1/reload", body: body, once: true}, nil)
	return err
}
