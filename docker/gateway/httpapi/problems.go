package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/metrics"
	"kubernaut.ai/e2e/docker/gateway/owner"
	"kubernaut.ai/e2e/docker/gateway/remediation"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/internal/problem"
)

// attendedRetryAfter is what a sender is told when somebody has to do something first:
// change a role, or remove remediation requests.
const attendedRetryAfter = 5 * time.Second

// asProblem words an error for the sender. 4xx says that the same request will never
// be accepted, 503 and 504 that it will be later. What it does not know is left to
// problem.Write, which says nothing about it.
func asProblem(err error) error {
	var known *problem.Problem
	var invalid *signal.Invalid
	var stale *signal.Stale
	var unknown *owner.UnknownKindError
	var unread *bodyError
	var unavailable *kube.UnavailableError
	var refused *remediation.RefusedError
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &invalid) && invalid.Field == "":
		return problem.New(http.StatusBadRequest, "malformed-body", invalid.Error())
	case errors.As(err, &invalid):
		return problem.New(http.StatusBadRequest, "invalid-signal", invalid.Error())
	case errors.As(err, &stale):
		return problem.New(http.StatusBadRequest, "outside-replay-window", stale.Error())
	case errors.As(err, &unknown):
		return problem.New(http.StatusBadRequest, "invalid-signal", unknown.Error())
	case errors.Is(err, remediation.ErrQuota):
		return again(http.StatusServiceUnavailable, "quota-exceeded",
			"the cluster holds as many remediation requests as its quota allows", attendedRetryAfter, err)
	case errors.As(err, &refused):
		return problem.New(http.StatusForbidden, "refused-by-cluster",
			"the cluster's API does not take this remediation request: an admission policy forbids it").Because(err)
	case errors.As(err, &unread) && !errors.Is(err, context.Canceled):
		return problem.New(http.StatusBadRequest, "unreadable-body", "the body ended too early or came too slowly").Because(err)
	case errors.As(err, &unavailable) && unavailable.CircuitOpen:
		return again(http.StatusServiceUnavailable, "circuit-open", "the cluster's API has failed too often and is given a rest", unavailable.RetryAfter, err)
	case errors.As(err, &unavailable):
		return again(http.StatusServiceUnavailable, "api-server-unavailable", "the cluster's API cannot be reached", unavailable.RetryAfter, err)
	case errors.Is(err, context.DeadlineExceeded):
		return again(http.StatusGatewayTimeout, "timeout", "the cluster's API took too long; the signal may still be counted", time.Second, err)
	case apierrors.IsRequestEntityTooLargeError(err):
		return problem.New(http.StatusRequestEntityTooLarge, "payload-too-large", "the signal is larger than the cluster's API stores").Because(err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsNotFound(err):
		return again(http.StatusServiceUnavailable, "gateway-not-permitted", "the Gateway lacks a permission or a resource definition in the cluster", attendedRetryAfter, err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return problem.New(http.StatusBadRequest, "invalid-signal", "the cluster's API does not accept this signal").Because(err)
	}
	return err
}

// again returns a problem that a retry may solve.
func again(status int, slug, detail string, after time.Duration, cause error) *problem.Problem {
	p := problem.New(status, slug, detail).Because(cause)
	p.RetryAfter = after
	return p
}

// detail returns what a sender may be told of an error, and its status.
func detail(err error) (text string, status int) {
	var p *problem.Problem
	if errors.As(asProblem(err), &p) {
		return p.Detail, p.Status
	}
	return "the signal could not be handled", http.StatusInternalServerError
}

// count counts what is refused for good.
func (a *api) count(err error) {
	var p *problem.Problem
	var stale *signal.Stale
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &stale):
		a.Metrics.Rejected(metrics.Replay)
	case errors.As(err, &tooLarge), apierrors.IsRequestEntityTooLargeError(err):
		a.Metrics.Rejected(metrics.TooLarge)
	case errors.As(err, &p) && p.Status == http.StatusUnsupportedMediaType:
		a.Metrics.Rejected(metrics.ContentType)
	default:
		if _, status := detail(err); status == http.StatusBadRequest {
			a.Metrics.Rejected(metrics.Invalid)
		}
	}
}

// passing reports whether an alert of a group that ended in err may be stored when it
// comes again. An error of the API server's that one object meets, while others of the
// same group are stored, is that object's: to send all again would never end.
func passing(err error, othersStored bool) bool {
	var answer apierrors.APIStatus
	if othersStored && errors.As(err, &answer) && answer.Status().Code == http.StatusInternalServerError {
		return false
	}
	_, status := detail(err)
	return status > http.StatusInternalServerError || status == http.StatusInternalServerError && !othersStored
}

// partly returns the problem of a webhook of which some alerts could not be stored
// now. A 2xx would make Alertmanager forget them, so it is told to send all of them
// again.
func partly(err error, failed, total int) error {
	var p *problem.Problem
	if !errors.As(asProblem(err), &p) {
		return err
	}
	told := *p
	told.Detail = fmt.Sprintf("%s; %d of %d alerts are not stored, send all of them again", p.Detail, failed, total)
	if told.RetryAfter == 0 {
		told.RetryAfter = time.Second
	}
	return told.Because(err)
}
