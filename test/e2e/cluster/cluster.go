// Package cluster is a suite process's one connection to the cluster under test: one
// client, the rights of senders, and waiting for objects by watch.
package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/test/e2e/target"
)

// Cluster is the connection. It is safe for concurrent use.
type Cluster struct {
	Target *target.Target
	API    client.WithWatch     // reads the API server, never a cache
	Kube   kubernetes.Interface // for what API has no verb for: tokens, reviews, logs
	config *rest.Config
}

// Connect opens the connection that the environment's kubeconfig describes. It sends
// nothing yet.
func Connect(t *target.Target) (*Cluster, error) {
	config, err := clientcmd.BuildConfigFromFlags("", t.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Kubeconfig, err)
	}
	// The API server has its own fairness; a second limit here would only queue specs
	// behind each other.
	config.QPS = -1
	ctrllog.SetLogger(logr.Discard()) // it prints a stack where nobody has set one
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	api, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", t.Cluster, err)
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", t.Cluster, err)
	}
	return &Cluster{Target: t, API: api, Kube: kube, config: config}, nil
}

// TLS is how to connect to a service whose certificate the environment's CA has signed for
// this name, whatever host and port lead there from outside.
func (c *Cluster) TLS(ctx context.Context, service string) (*tls.Config, error) {
	bundle := &corev1.ConfigMap{}
	if err := c.API.Get(ctx, client.ObjectKey{Namespace: c.Target.Namespace, Name: "kubernaut-ca"}, bundle); err != nil {
		return nil, fmt.Errorf("ConfigMap/kubernaut-ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(bundle.Data["ca.crt"])) {
		return nil, errors.New("ConfigMap/kubernaut-ca: ca.crt: no certificate")
	}
	return &tls.Config{RootCAs: roots, ServerName: service, MinVersion: tls.VersionTLS12}, nil
}

// Await returns when done says that the named object is as it should be; obj then holds
// the object as it was seen. An object that does not exist yet is waited for, and the last
// state of one that is deleted counts. When ctx ends first, the error tells what done
// last said.
func Await[T client.Object](ctx context.Context, c *Cluster, obj T, done func(T) (bool, string)) error {
	gvk, err := c.API.GroupVersionKindFor(obj)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s/%s/%s", gvk.Kind, obj.GetNamespace(), obj.GetName())
	options := []client.ListOption{client.InNamespace(obj.GetNamespace()), client.MatchingFields{"metadata.name": obj.GetName()}}
	last := "not seen"
	for {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
		changes, err := c.API.Watch(ctx, list, options...)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", name, last, err)
		}
		var found bool
		found, last, err = follow(ctx, changes, obj, last, done)
		changes.Stop()
		if found || err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s: %s: %w", name, last, context.Cause(ctx))
		}
	}
}

// follow reads changes until done, the end of ctx or the end of the stream, which the
// API server closes from time to time.
func follow[T client.Object](ctx context.Context, changes watch.Interface, obj T, last string, done func(T) (bool, string)) (bool, string, error) {
	for {
		select {
		case <-ctx.Done():
			return false, last, nil
		case change, open := <-changes.ResultChan():
			if !open {
				return false, last, nil
			}
			raw, ok := change.Object.(*unstructured.Unstructured)
			if !ok || change.Type == watch.Error {
				return false, last, nil
			}
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(raw.Object, obj); err != nil {
				return false, last, err
			}
			var found bool
			if found, last = done(obj); found {
				return true, last, nil
			}
			if change.Type == watch.Deleted {
				last = "deleted; before: " + last
			}
		}
	}
}
