package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// The pauses between tries grow from the first to the last: an API server that
// comes up is met within a fraction of a second, and one that is down for a minute
// gets a few dozen requests.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
)

// unknownField is how the API server refuses a field that a kind does not have: with
// code 500 and no reason, as it answers troubles of its own that pass.
const unknownField = "failed to create typed patch object"

// Retry calls try until it succeeds, fails with an error that again does not hold
// for, or ctx ends. When ctx ends, the error holds its cause and what was wrong last.
func Retry(ctx context.Context, again func(error) bool, try func() error) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = firstPause, lastPause
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		err := try()
		// A try that ctx cut short says nothing about the cluster; the one before did.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		if err != nil && !again(err) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0))
	if err != nil && last != nil && !errors.Is(err, last) {
		return fmt.Errorf("%w: %w", err, last)
	}
	return err
}

// Serves waits until the API server says that it is ready: one that comes up answers before it
// knows its roles, and forbids what it will allow.
func Serves(ctx context.Context, client Interface) error {
	return Retry(ctx, func(error) bool { return true }, func() error {
		return client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// Transient reports whether the same request may succeed a moment later: the API
// server does not answer yet or is too busy, a webhook or the namespace is not
// there yet, or somebody else wrote at the same moment.
func Transient(err error) bool {
	if status := apierrors.APIStatus(nil); errors.As(err, &status) {
		details := status.Status().Details
		switch {
		case strings.Contains(status.Status().Message, unknownField):
			return false
		case status.Status().Code >= http.StatusInternalServerError,
			apierrors.IsTooManyRequests(err), apierrors.IsTimeout(err), apierrors.IsConflict(err),
			apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return true
		}
		return apierrors.IsNotFound(err) && details != nil && details.Kind == "namespaces"
	}
	return utilnet.IsConnectionRefused(err) || utilnet.IsConnectionReset(err) || utilnet.IsProbableEOF(err) ||
		utilnet.IsTimeout(err) || utilnet.IsHTTP2ConnectionLost(err)
}
