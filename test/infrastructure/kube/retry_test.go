package kube

import (
	"context"
	"errors"
	"io"
	"net/url"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestTransient(t *testing.T) {
	resource := schema.GroupResource{Resource: "secrets"}
	tests := []struct {
		name string
		err  error
		want bool
	}{
		{"connection refused", &testError{syscall.ECONNREFUSED}, true},
		{"connection cut", &url.Error{Op: "Get", Err: io.EOF}, true},
		{"too many requests", apierrors.NewTooManyRequests("busy", 1), true},
		{"unavailable", apierrors.NewServiceUnavailable("starting"), true},
		{"webhook not there", apierrors.NewInternalError(errors.New("failed calling webhook")), true},
		{"unknown trouble of the server", &apierrors.StatusError{ErrStatus: metav1.Status{Code: 500, Message: "etcdserver: request timed out"}}, true},
		{"unknown field", &apierrors.StatusError{ErrStatus: metav1.Status{Code: 500, Message: "failed to create typed patch object: .dta: field not declared in schema"}}, false},
		{"conflict", apierrors.NewConflict(resource, "a", errors.New("modified")), true},
		{"namespace not there", apierrors.NewNotFound(corev1.Resource("namespaces"), "apps"), true},
		{"object not there", apierrors.NewNotFound(resource, "a"), false},
		{"refused", apierrors.NewBadRequest("unknown field"), false},
		{"forbidden", apierrors.NewForbidden(resource, "a", errors.New("no")), false},
		{"invalid", apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "a", nil), false},
		{"anything else", errors.New("no such host"), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := Transient(test.err); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

type testError struct{ err error }

func (e *testError) Error() string { return "dialling: " + e.err.Error() }
func (e *testError) Unwrap() error { return e.err }

func TestRetry(t *testing.T) {
	busy := apierrors.NewServiceUnavailable("starting")

	t.Run("goes on until it succeeds", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tries := 0
			err := Retry(t.Context(), Transient, func() error {
				if tries++; tries < 4 {
					return busy
				}
				return nil
			})
			if err != nil || tries != 4 {
				t.Errorf("got %v after %d tries, want success after 4", err, tries)
			}
		})
	})

	t.Run("ends with what is wrong for good", func(t *testing.T) {
		wrong := apierrors.NewBadRequest("unknown field")
		if err := Retry(t.Context(), Transient, func() error { return wrong }); !errors.Is(err, wrong) {
			t.Errorf("got %v, want %v", err, wrong)
		}
	})

	t.Run("ends with the context and says what was wrong before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := Retry(ctx, Transient, func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				return busy
			})
			if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, error(busy)) {
				t.Errorf("got %v, want the deadline and %v", err, busy)
			}
		})
	})
}
