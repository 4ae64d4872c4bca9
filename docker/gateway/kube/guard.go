// Package kube is the Gateway's client of the API server: calls that meet trouble
// are retried, and when there is too much of it a circuit breaker answers instead.
package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
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
	// OpenFor is how long the breaker stays open by default: time for an API server that is
	// restarted to come back.
	OpenFor = 5 * time.Second
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
	openFor time.Duration
}

// NewGuard returns a guard whose breaker is closed. Once it opens it stays so for openFor, which
// is also what senders are told to wait. onChange, which may be nil, is told every
// new state of the breaker.
func NewGuard(openFor time.Duration, onChange func(State)) *Guard {
	return &Guard{openFor: openFor, breaker: gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
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
	sent := false
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		_, err := g.breaker.Execute(func() (struct{}, error) {
			err := attempt(ctx, call)
			sent = sent || !unsent(err)
			return struct{}{}, err
		})
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
		return &UnavailableError{RetryAfter: g.openFor, CircuitOpen: true, Sent: sent, err: err}
	case ctx.Err() != nil && sent:
		// A deadline that ended within a call reads as many things; this is what it is.
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", ctx.Err(), &UnavailableError{RetryAfter: retryAfter(err), err: err})
	case Trouble(err):
		return &UnavailableError{RetryAfter: retryAfter(err), Sent: sent, err: err}
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
// answer, or it answered that it cannot (429, 5xx). What fails before anything is sent,
// or in reading an answer that came whole, is the request's. The circuit being open is
// not news about the API server.
func Trouble(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) ||
		errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
		return false
	}
	var answer apierrors.APIStatus
	if errors.As(err, &answer) {
		code := answer.Status().Code
		return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
	}
	return !unsendable(err) && (connection(err) || errors.Is(err, context.DeadlineExceeded))
}

// connection reports whether err is one of a connection: it could not be made, it
// broke, or what came over it was cut.
func connection(err error) bool {
	var transport *url.Error // all that http.Client returns
	var network net.Error
	return errors.As(err, &transport) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		// client-go's words for a connection that ended within an answer, whose error has no
		// type that could be named without its HTTP/2 library.
		strings.Contains(err.Error(), "when reading response body")
}

// unsent reports whether err says that there was no connection to send a call over.
func unsent(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) && network.Op == "dial" || err != nil && unsendable(err)
}

// unsendable reports whether the transport refused to send the request for what it is.
// The error has no type: golang.org/x/net/http2 keeps errRequestHeaderListSize to itself.
func unsendable(err error) bool {
	return strings.Contains(err.Error(), "request header list larger than peer's advertised limit")
}

// Doubtful reports whether the API server may have done what it was asked for although
// err came of it: it was asked, and did not answer.
func Doubtful(err error) bool {
	var unavailable *UnavailableError
	if errors.As(err, &unavailable) && !unavailable.Sent {
		return false
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	var answer apierrors.APIStatus
	if errors.As(err, &answer) {
		return answer.Status().Code == http.StatusGatewayTimeout
	}
	return unavailable != nil
}

// UnavailableError says that the API server cannot be had now.
type UnavailableError struct {
	RetryAfter  time.Duration
	CircuitOpen bool // the circuit breaker answered the last try
	Sent        bool // a call may have reached the API server, whatever came of it

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
