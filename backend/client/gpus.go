package client

import (
	"context"
	"net/http"

	"easel/backend"
)

// GPUHistory is what the cards did in the last ten minutes, with jobs, deaths and
// restarts marked.
func (c *Client) GPUHistory(ctx context.Context) (backend.GPUHistory, error) {
	var h backend.GPUHistory
	_, err := c.into(ctx, call{method: http.MethodGet, path: "/v1/gpus/history"}, &h)
	return h, err
}
