package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	requests    = schema.GroupResource{Group: "kubernaut.ai", Resource: "remediationrequests"}
	refused     = &url.Error{Op: "Get", URL: "https://api", Err: syscall.ECONNREFUSED}
	unavailable = apierrors.NewServiceUnavailable("later")
)

func TestTrouble(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"nothing":              {nil, false},
		"refused connection":   {refused, true},
		"ended deadline":       {context.DeadlineExceeded, true},
		"cancelled":            {fmt.Errorf("get: %w", context.Canceled), false},
		"unavailable":          {unavailable, true},
		"internal":             {apierrors.NewInternalError(errors.New("etcd")), true},
		"too many":             {apierrors.NewTooManyRequests("busy", 1), true},
		"server timeout":       {apierrors.NewServerTimeout(requests, "get", 1), true},
		"gateway timeout":      {apierrors.NewTimeoutError("slow", 1), true},
		"wrapped":              {fmt.Errorf("get: %w", unavailable), true},
		"not found":            {apierrors.NewNotFound(requests, "x"), false},
		"exists":               {apierrors.NewAlreadyExists(requests, "x"), false},
		"conflict":             {apierrors.NewConflict(requests, "x", errors.New("changed")), false},
		"invalid":              {apierrors.NewInvalid(schema.GroupKind{}, "x", nil), false},
		"forbidden":            {apierrors.NewForbidden(requests, "x", errors.New("no")), false},
		"unauthorized":         {apierrors.NewUnauthorized("who"), false},
		"too large":            {apierrors.NewRequestEntityTooLargeError("large"), false},
		"a broken connection":  {io.ErrUnexpectedEOF, true},
		"a cut answer":         {errors.New("unexpected error when reading response body. Please retry. Original error: stream error"), true},
		"nothing to be sent":   {&url.Error{Op: "Get", URL: "https://api", Err: errors.New("http2: request header list larger than peer's advertised limit")}, false},
		"no such kind":         {&meta.NoKindMatchError{}, false},
		"not to be encoded":    {errors.New("json: unsupported type"), false},
		"a word that misleads": {apierrors.NewBadRequest("internal server error, service unavailable, timeout"), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Trouble(c.err); got != c.want {
				t.Errorf("got %t for %v", got, c.err)
			}
		})
	}
}

// calls returns a call that returns these errors, one after the other, and then nil.
func calls(n *int, errs ...error) func(context.Context) error {
	return func(context.Context) error {
		*n++
		if *n <= len(errs) {
			return errs[*n-1]
		}
		return nil
	}
}

func TestDoRetriesTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		start := time.Now()
		if err := NewGuard(OpenFor, nil).Do(t.Context(), calls(&n, unavailable, refused, unavailable)); err != nil || n != 4 {
			t.Errorf("got %v after %d calls", err, n)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestDoGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		busy := apierrors.NewTooManyRequests("busy", 7)
		err := NewGuard(OpenFor, nil).Do(t.Context(), calls(&n, busy, busy, busy, busy, busy))
		var gone *UnavailableError
		if !errors.As(err, &gone) || gone.CircuitOpen || gone.RetryAfter != 7*time.Second || n != maxTries || !apierrors.IsTooManyRequests(err) {
			t.Errorf("got %v after %d calls", err, n)
		}
	})
}

func TestDoReturnsAnswersAsTheyAre(t *testing.T) {
	n := 0
	err := NewGuard(OpenFor, nil).Do(t.Context(), calls(&n, apierrors.NewNotFound(requests, "x")))
	var gone *UnavailableError
	if !apierrors.IsNotFound(err) || errors.As(err, &gone) || n != 1 {
		t.Errorf("got %v after %d calls", err, n)
	}
}

func TestDoEndsWithItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		err := NewGuard(OpenFor, nil).Do(ctx, func(ctx context.Context) error {
			<-ctx.Done()
			return &url.Error{Op: "Get", URL: "https://api", Err: ctx.Err()}
		})
		var gone *UnavailableError
		if !errors.Is(err, context.DeadlineExceeded) || errors.As(err, &gone) {
			t.Errorf("got %v", err)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var states []State
		guard := NewGuard(OpenFor, func(s State) { states = append(states, s) })
		down := true
		n := 0
		call := func(context.Context) error {
			n++
			if down {
				return refused
			}
			return nil
		}
		var gone *UnavailableError
		for !errors.As(guard.Do(t.Context(), call), &gone) || !gone.CircuitOpen {
		}
		if n != tripAfter {
			t.Errorf("opened after %d calls, want %d", n, tripAfter)
		}
		if err := guard.Do(t.Context(), call); !errors.As(err, &gone) || gone.RetryAfter != OpenFor || n != tripAfter {
			t.Errorf("got %v after %d calls, want none made while open", err, n)
		}
		down = false
		<-time.After(OpenFor + time.Nanosecond)
		for range probes {
			if err := guard.Do(t.Context(), call); err != nil {
				t.Errorf("got %v", err)
			}
		}
		if want := []State{Open, HalfOpen, Closed}; !slices.Equal(states, want) {
			t.Errorf("got states %v, want %v", states, want)
		}
	})
}

// TestOneBadSender holds the breaker to what it is for: the API server's trouble, and
// nothing that a request can bring about.
func TestOneBadSender(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard := NewGuard(OpenFor, func(s State) { t.Errorf("state changed to %d", s) })
		for name, err := range map[string]error{
			"not found":      apierrors.NewNotFound(requests, "x"),
			"invalid":        apierrors.NewInvalid(schema.GroupKind{}, "x", nil),
			"already exists": apierrors.NewAlreadyExists(requests, "x"),
			"forbidden":      apierrors.NewForbidden(requests, "x", errors.New("no")),
			"too large":      &apierrors.StatusError{ErrStatus: apierrors.NewRequestEntityTooLargeError("x").Status()},
			"cancelled":      context.Canceled,
		} {
			for range 3 * tripAfter {
				if got := guard.Do(t.Context(), func(context.Context) error { return err }); got == nil {
					t.Errorf("%s: got no error", name)
				}
			}
		}
		// A batch that is too large for its deadline fails many calls at its very end.
		late, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		for range 3 * tripAfter {
			_ = guard.Do(late, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		}
		n := 0
		if err := guard.Do(t.Context(), calls(&n)); err != nil || n != 1 {
			t.Errorf("got %v after %d calls", err, n)
		}
	})
}

func TestDoubtful(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want bool
	}{
		"no answer":          {&UnavailableError{Sent: true, err: refused}, true},
		"an ended deadline":  {fmt.Errorf("%w: %w", context.DeadlineExceeded, refused), true},
		"a timeout told":     {&UnavailableError{Sent: true, err: apierrors.NewTimeoutError("slow", 1)}, true},
		"never sent":         {&UnavailableError{CircuitOpen: true, err: errors.New("open")}, false},
		"sent, then refused": {&UnavailableError{CircuitOpen: true, Sent: true, err: errors.New("open")}, true},
		"an answer":          {&UnavailableError{Sent: true, err: unavailable}, false},
		"a refusal":          {apierrors.NewConflict(requests, "x", errors.New("changed")), false},
		"its own fault":      {errors.New("json: unsupported type"), false},
		"nothing":            {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Doubtful(c.err); got != c.want {
				t.Errorf("got %t for %v", got, c.err)
			}
		})
	}
}

// TestARequestThatCannotBeSentHarmsNobody: one tenant's object must not open the breaker.
func TestARequestThatCannotBeSentHarmsNobody(t *testing.T) {
	guard, n := NewGuard(OpenFor, nil), 0
	unsendable := &url.Error{Op: "Get", URL: "https://api", Err: errors.New("http2: request header list larger than peer's advertised limit")}
	for range 2 * tripAfter {
		if err := guard.Do(t.Context(), calls(&n, slices.Repeat([]error{unsendable}, 10*tripAfter)...)); err == nil {
			t.Fatal("got no error")
		}
	}
	if n != 2*tripAfter {
		t.Errorf("made %d calls, want one each", n)
	}
	n = 0
	if err := guard.Do(t.Context(), calls(&n)); err != nil {
		t.Errorf("somebody else: got %v", err)
	}
}

func TestWhetherACallMayHaveBeenSent(t *testing.T) {
	dial := &url.Error{Op: "Post", URL: "https://api", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
	broken := &url.Error{Op: "Post", URL: "https://api", Err: io.ErrUnexpectedEOF}
	for name, c := range map[string]struct {
		errs []error
		want bool
	}{
		"never a connection":          {[]error{dial, dial, dial, dial}, false},
		"one that broke":              {[]error{broken, dial, dial, dial}, true},
		"one that broke at the end":   {[]error{dial, dial, dial, broken}, true},
		"one that was made and heard": {[]error{unavailable, dial, dial, dial}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				if err := NewGuard(OpenFor, nil).Do(t.Context(), calls(&n, c.errs...)); Doubtful(err) != c.want {
					t.Errorf("got %t for %v", Doubtful(err), err)
				}
			})
		})
	}
}
