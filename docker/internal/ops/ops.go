// Package ops serves probes and scrapes on ports of their own.
package ops

import (
	"log/slog"
	"net/http"

	"github.com/go-chi/chi/v5"

	"kubernaut.ai/e2e/docker/internal/problem"
	"kubernaut.ai/e2e/docker/internal/request"
)

// Handler serves each path by GET and HEAD, and answers anything else with a problem. The
// answers have the headers and the request id that those of the API have.
func Handler(log *slog.Logger, handlers map[string]http.Handler) http.Handler {
	router := chi.NewRouter()
	router.Use(request.Middleware(log))
	router.NotFound(problem.NotFound)
	router.MethodNotAllowed(problem.MethodNotAllowed(router))
	for path, handler := range handlers {
		router.Method(http.MethodGet, path, handler)
		router.Method(http.MethodHead, path, handler)
	}
	return router
}
