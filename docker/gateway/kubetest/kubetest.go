//go:build integration

// Package kubetest gives integration tests a real API server.
package kubetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"kubernaut.ai/e2e/docker/gateway/kube"
)

// Run starts an API server with the Gateway's resource definitions, runs a package's
// tests with it, and returns the exit code for TestMain. It fails without
// KUBEBUILDER_ASSETS.
func Run(m *testing.M, use func(*rest.Config)) int {
	code, err := run(m, use)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func run(m *testing.M, use func(*rest.Config)) (code int, err error) {
	if os.Getenv("KUBEBUILDER_ASSETS") == "" {
		return 0, errors.New("KUBEBUILDER_ASSETS: not set; run: go tool mage test:integration")
	}
	_, here, _, _ := runtime.Caller(0)
	ctrllog.SetLogger(logr.Discard())
	environment := &envtest.Environment{
		CRDDirectoryPaths:     []string{filepath.Join(filepath.Dir(here), "../../../manifests/crds/kubernaut.ai_remediationrequests.yaml")},
		ErrorIfCRDPathMissing: true,
	}
	cfg, err := environment.Start()
	defer func() { err = errors.Join(err, environment.Stop()) }()
	if err != nil {
		return 0, fmt.Errorf("API server: %w", err)
	}
	cfg.QPS = -1
	use(cfg)
	return m.Run(), nil
}

// Client returns a client of its own, as the Gateway makes one.
func Client(t *testing.T, cfg *rest.Config) client.WithWatch {
	t.Helper()
	cfg = rest.CopyConfig(cfg)
	// Transports are shared by equal configurations. Another process has its own.
	cfg.UserAgent = "test-" + uuid.NewString()
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c, err := kube.NewClient(cfg, httpClient)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Any returns a client of every kind, which the Gateway's is not.
func Any(t *testing.T, cfg *rest.Config) client.Client {
	t.Helper()
	scheme, err := kube.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Namespace creates a namespace with these labels that no other test knows.
func Namespace(t *testing.T, c client.Client, labels map[string]string) string {
	t.Helper()
	prefix := strings.ToLower(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, t.Name()))
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: prefix[:min(len(prefix), 40)] + "-" + uuid.NewString()[:8], Labels: labels,
	}}
	if err := c.Create(context.WithoutCancel(t.Context()), namespace); err != nil {
		t.Fatal(err)
	}
	return namespace.Name
}
