// Package trace carries what follows a request through the code: its id and the
// logger that writes the id on every line. It knows nothing of HTTP.
package trace

import (
	"context"
	"log/slog"
)

type idKey struct{}
type logKey struct{}

// With returns a context that carries the request's id and a logger that adds it
// to every line as request_id.
func With(ctx context.Context, id string, log *slog.Logger) context.Context {
	ctx = context.WithValue(ctx, idKey{}, id)
	return WithLog(ctx, log.With("request_id", id))
}

// WithLog returns a context that carries log in place of the logger that ctx
// carried.
func WithLog(ctx context.Context, log *slog.Logger) context.Context {
	return context.WithValue(ctx, logKey{}, log)
}

// ID returns the request's id, or "" outside a request.
func ID(ctx context.Context) string {
	id, _ := ctx.Value(idKey{}).(string)
	return id
}

// Log returns the logger of ctx. Outside a request it is slog's default logger.
func Log(ctx context.Context) *slog.Logger {
	if log, ok := ctx.Value(logKey{}).(*slog.Logger); ok {
		return log
	}
	return slog.Default()
}
