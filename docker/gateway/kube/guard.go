// Package kube is the Gateway's client of the API server: calls that meet trouble
// are retried, and when there is too much of it a circuit breaker answers instead.
package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/sony/gobreaker/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	// maxTries with the back-off below takes about a second: enough for a request
	// that met a restarting API server's neighbour, short enough that the sender
	// learns soon that it has to come back.
	maxTries       = 4
	initialBackOff = 100 * time.Millisecond
	maxBackOff     = time.Second

	// tripAfter is how many calls in a row have to fail before the breaker opens.
	// One call is tried maxTries times, so that is at least three requests.
	tripAfter = 10
	// openFor is how long the breaker stays open, and what senders are told to wait.
	openFor = 5 * time.Second
	// probes is how many calls have to succeed before the breaker closes.
	probes = 3

	// fairTime is what a call must have had before its ended deadline counts
	// against the API server and not against the request that came to it late.
	fairTime = time.Second
)

// BreakerName is the circuit breaker's name in metrics.
const BreakerName = "kubernetes"

// State is the circuit breaker's state as the metric shows it.
type State int

// The states of the circuit breaker.
const (
	Closed   State = 0
	HalfOpen State = 1
	Open     State = 2
)

// Guard stands between the Gateway and the API server. It is safe for concurrent use.
type Guard struct {
	breaker *gobreaker.CircuitBreaker[struct{}]
}

// NewGuard returns a guard whose breaker is closed. onChange, which may be nil, is
// told every new state of the breaker.
func NewGuard(onChange func(State)) *Guard {
	return &Guard{breaker: gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         BreakerName,
		MaxRequests:  probes,
		Timeout:      openFor,
		ReadyToTrip:  func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= tripAfter },
		IsSuccessful: func(err error) bool { return !Trouble(err) },
		IsExcluded: func(err error) bool {
			var late *lateError
			return errors.Is(err, context.Canceled) || errors.As(err, &late)
		},
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if onChange == nil {
				return
			}
			switch to {
			case gobreaker.StateClosed:
				onChange(Closed)
			case gobreaker.StateHalfOpen:
				onChange(HalfOpen)
			case gobreaker.StateOpen:
				onChange(Open)
			}
		},
	})}
}

// Do makes a call, and makes it again with back-off while it meets trouble. A call
// that changes something may thus be made twice although the first one succeeded:
// its caller has to recognise its own work. An *UnavailableError says that the
// trouble did not end; every other error is the API server's answer, or ctx's.
func (g *Guard) Do(ctx context.Context, call func(context.Context) error) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval = initialBackOff
	wait.MaxInterval = maxBackOff
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		_, err := g.breaker.Execute(func() (struct{}, error) { return struct{}{}, attempt(ctx, call) })
		if err != nil && !Trouble(err) {
			return struct{}{}, backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(wait), backoff.WithMaxTries(maxTries))

	var permanent *backoff.PermanentError
	if errors.As(err, &permanent) {
		err = permanent.Unwrap()
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, gobreaker.ErrOpenState), errors.Is(err, gobreaker.ErrTooManyRequests):
		return &UnavailableError{RetryAfter: openFor, CircuitOpen: true, err: err}
	case ctx.Err() != nil:
		// A deadline that ended within a call reads as many things; this is what it is.
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case Trouble(err):
		return &UnavailableError{RetryAfter: retryAfter(err), err: err}
	}
	return err
}

// attempt makes the call once, and marks the error of one that had no fair time.
func attempt(ctx context.Context, call func(context.Context) error) error {
	start := time.Now()
	err := call(ctx)
	if err != nil && ctx.Err() != nil && time.Since(start) < fairTime {
		return &lateError{err}
	}
	return err
}

// retryAfter is what the API server asked for, or a second.
func retryAfter(err error) time.Duration {
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok && seconds > 0 {
		return time.Duration(seconds) * time.Second
	}
	return time.Second
}

// Trouble reports whether err is the API server's and not the request's: it did not
// answer, or it answered that it cannot (429, 5xx). The circuit being open is not
// news about the API server.
func Trouble(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) ||
		errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return false
	}
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return true
	}
	code := answer.Status().Code
	return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
}

// UnavailableError says that the API server cannot be had now.
type UnavailableError struct {
	RetryAfter  time.Duration
	CircuitOpen bool // no call was made at all

	err error
}

// Error says what the API server's trouble was.
func (e *UnavailableError) Error() string { return "API server unavailable: " + e.err.Error() }

// Unwrap returns the last call's error.
func (e *UnavailableError) Unwrap() error { return e.err }

// lateError is the error of a call that began when its context was nearly over.
type lateError struct{ err error }

func (e *lateError) Error() string { return e.err.Error() }
func (e *lateError) Unwrap() error { return e.err }
