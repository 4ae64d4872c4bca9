package faults

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/test/e2e/answer"
)

// Distrust rolls a Deployment out that trusts an authority which has signed nothing, in
// place of the environment's, and waits until the kubelet has found the new pod not started.
// It returns what that pod answers at /startupz, and what rolls it back and waits until all
// is as it was; that is never nil.
func (i *Injector) Distrust(ctx context.Context, app App) (startup *answer.Answer, trust func(context.Context) error, err error) {
	foreign := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: i.namespace(app), Name: "foreign-ca-" + uuid.NewString()[:8]}}
	patch := func(ctx context.Context, name string) error {
		body := fmt.Sprintf(`{"spec":{"template":{"spec":{"volumes":[{"name":"ca","configMap":{"name":%q}}]}}}}`, name)
		if err := i.Cluster.API.Patch(ctx, i.object(app), client.RawPatch("application/strategic-merge-patch+json", []byte(body))); err != nil {
			return fmt.Errorf("%s: trusting %s: %w", app.Name, name, err)
		}
		return nil
	}
	trust = func(ctx context.Context) error {
		return errors.Join(patch(ctx, "kubernaut-ca"), i.AwaitReady(ctx, app), client.IgnoreNotFound(i.Cluster.API.Delete(ctx, foreign)))
	}
	cert, _, err := issue(&x509.Certificate{IsCA: true}, nil)
	if err != nil {
		return nil, trust, err
	}
	before, err := i.Pods(ctx, app)
	if err != nil {
		return nil, trust, err
	}
	foreign.Data = map[string]string{"ca.crt": string(cert)}
	if err := i.Cluster.API.Create(ctx, foreign); err != nil {
		return nil, trust, err
	}
	if err := patch(ctx, foreign.Name); err != nil {
		return nil, trust, err
	}
	fresh, err := i.awaitUnstarted(ctx, app, before)
	if err != nil {
		return nil, trust, err
	}
	startup, err = i.Cluster.Ask(ctx, fresh.Name, "8081", "/startupz")
	return startup, trust, err
}

// Renew replaces the certificate in a Secret by a new one of the environment's authority,
// for the same names, and has the kubelet bring it to an app's pods, which it would do by
// itself within a minute. It returns the new one's serial number.
func (i *Injector) Renew(ctx context.Context, app App, secret string) (*big.Int, error) {
	authority, old := &corev1.Secret{}, &corev1.Secret{}
	for name, into := range map[string]*corev1.Secret{"e2e-ca-key": authority, secret: old} {
		if err := i.Cluster.API.Get(ctx, client.ObjectKey{Namespace: i.namespace(app), Name: name}, into); err != nil {
			return nil, fmt.Errorf("Secret/%s: %w", name, err)
		}
	}
	signer, err := tls.X509KeyPair(authority.Data[corev1.TLSCertKey], authority.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("Secret/%s: %w", authority.Name, err)
	}
	before, err := tls.X509KeyPair(old.Data[corev1.TLSCertKey], old.Data[corev1.TLSPrivateKeyKey])
	if err != nil {
		return nil, fmt.Errorf("Secret/%s: %w", secret, err)
	}
	next := &x509.Certificate{DNSNames: before.Leaf.DNSNames, IPAddresses: before.Leaf.IPAddresses, ExtKeyUsage: before.Leaf.ExtKeyUsage}
	cert, key, err := issue(next, &signer)
	if err != nil {
		return nil, err
	}
	old.Data[corev1.TLSCertKey], old.Data[corev1.TLSPrivateKeyKey] = cert, key
	if err := i.Cluster.API.Update(ctx, old); err != nil {
		return nil, fmt.Errorf("Secret/%s: %w", secret, err)
	}
	pods, err := i.Pods(ctx, app)
	if err != nil {
		return nil, err
	}
	// A pod that changes is looked at at once, with its volumes.
	touch := fmt.Sprintf(`{"metadata":{"annotations":{"e2e.kubernaut.ai/renewed":%q}}}`, next.SerialNumber.String())
	for n := range pods {
		err := i.Cluster.API.Patch(ctx, &pods[n], client.RawPatch("application/merge-patch+json", []byte(touch)))
		if client.IgnoreNotFound(err) != nil { // gone: another spec's, which was not to start
			return nil, fmt.Errorf("Pod/%s: %w", pods[n].Name, err)
		}
	}
	return next.SerialNumber, nil
}

// issue completes a certificate and signs it, by itself without a signer.
func issue(template *x509.Certificate, signer *tls.Certificate) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127)); err != nil {
		return nil, nil, err
	}
	template.BasicConstraintsValid = true
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(365*24*time.Hour)
	parent, by := template, any(key)
	if signer != nil {
		parent, by = signer.Leaf, signer.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// awaitUnstarted waits until a pod of an app runs that was not there before and the kubelet
// has found it not started, and returns it.
func (i *Injector) awaitUnstarted(ctx context.Context, app App, before []corev1.Pod) (*corev1.Pod, error) {
	var fresh *corev1.Pod
	err := i.AwaitPods(ctx, app, func(pods []corev1.Pod) bool {
		for _, pod := range pods {
			known := slices.ContainsFunc(before, func(old corev1.Pod) bool { return old.UID == pod.UID })
			if !known && len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].State.Running != nil {
				fresh = &pod
				return true
			}
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	found, err := i.Cluster.API.Watch(ctx, &corev1.EventList{}, client.InNamespace(fresh.Namespace),
		client.MatchingFields{"involvedObject.uid": string(fresh.UID), "reason": "Unhealthy"})
	if err != nil {
		return nil, err
	}
	defer found.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("Pod/%s: the kubelet has not found it not started: %w", fresh.Name, context.Cause(ctx))
		case change, open := <-found.ResultChan():
			if !open {
				return nil, fmt.Errorf("Pod/%s: the watch of its events has ended", fresh.Name)
			}
			if event, ok := change.Object.(*corev1.Event); ok && strings.HasPrefix(event.Message, "Startup probe failed: HTTP probe failed with statuscode: 503") {
				return fresh, nil
			}
		}
	}
}
