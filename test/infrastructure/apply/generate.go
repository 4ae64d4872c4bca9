package apply

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Annotations that ask for values that must not stand in a file. What the cluster
// holds already is kept, so that applying twice changes nothing.
const (
	// RandomAnnotation on a Secret lists keys, separated by commas, that each get a
	// random value safe in URLs.
	RandomAnnotation = "e2e.kubernaut.ai/random"
	// CertificateAnnotation on a Secret of type kubernetes.io/tls lists the DNS names
	// and IP addresses, separated by commas, of a certificate signed by the
	// authority. The Secret gets tls.crt, tls.key and ca.crt.
	CertificateAnnotation = "e2e.kubernaut.ai/certificate"
	// AuthorityAnnotation on the Secret AuthoritySecret makes it hold the authority's
	// certificate (tls.crt) and key (tls.key).
	AuthorityAnnotation = "e2e.kubernaut.ai/certificate-authority"
	// BundleAnnotation on a ConfigMap puts the authority's certificate into ca.crt.
	BundleAnnotation = "e2e.kubernaut.ai/ca-bundle"
	// PreparesAnnotation on a Job names the StatefulSet of its namespace that it
	// prepares. The Job's pods get the StatefulSet's revision as the same annotation, so
	// that it runs again when the StatefulSet's pods have changed, and perhaps with them
	// where their data lie.
	PreparesAnnotation = "e2e.kubernaut.ai/prepares"
)

// AuthoritySecret is the Secret that a namespace's certificates are signed with.
const AuthoritySecret = "e2e-ca-key"

// randomBytes is the entropy of a generated value: 192 bits are 32 characters.
const randomBytes = 24

const (
	certKey   = "tls.crt"
	keyKey    = "tls.key"
	bundleKey = "ca.crt"
)

func isAuthority(obj *unstructured.Unstructured) bool {
	_, ok := obj.GetAnnotations()[AuthorityAnnotation]
	return ok && isSecret(obj)
}

func isSecret(obj *unstructured.Unstructured) bool {
	return obj.GetKind() == "Secret" && obj.GroupVersionKind().Group == ""
}

// checkAnnotations returns what is wrong with the values that an object asks for.
func checkAnnotations(obj *unstructured.Unstructured) []error {
	var problems []error
	refuse := func(annotation, format string, args ...any) {
		problems = append(problems, fmt.Errorf("annotation %s: %s", annotation, fmt.Sprintf(format, args...)))
	}
	annotations := obj.GetAnnotations()
	for _, annotation := range slices.Sorted(maps.Keys(annotations)) {
		value := annotations[annotation]
		switch annotation {
		case RandomAnnotation:
			if !isSecret(obj) {
				refuse(annotation, "only a Secret can have it")
			}
			if len(listed(value)) == 0 {
				refuse(annotation, "lists no key")
			}
		case CertificateAnnotation:
			if kind, _, _ := unstructured.NestedString(obj.Object, "type"); !isSecret(obj) || kind != "kubernetes.io/tls" {
				refuse(annotation, "only a Secret of type kubernetes.io/tls can have it")
			}
			if len(listed(value)) == 0 {
				refuse(annotation, "lists no name")
			}
		case AuthorityAnnotation:
			if !isSecret(obj) || obj.GetName() != AuthoritySecret {
				refuse(annotation, "only the Secret %s can have it", AuthoritySecret)
			}
		case BundleAnnotation:
			if obj.GetKind() != "ConfigMap" {
				refuse(annotation, "only a ConfigMap can have it")
			}
		case PreparesAnnotation:
			if !isJob(obj) {
				refuse(annotation, "only a Job can have it")
			}
			if value == "" {
				refuse(annotation, "names no StatefulSet")
			}
		}
	}
	return problems
}

// listed splits a list as annotations hold it.
func listed(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
}

// fill returns what to send for obj: a copy with the values that its annotations
// ask for. Current is the object in the cluster, nil when there is none.
func (a *Applier) fill(ctx context.Context, obj, current *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	annotations := obj.GetAnnotations()
	_, bundle := annotations[BundleAnnotation]
	prepared, prepares := annotations[PreparesAnnotation]
	switch {
	case prepares:
		return a.fillJob(ctx, obj, prepared)
	case isSecret(obj):
		return a.fillSecret(ctx, obj, current)
	case bundle:
		authority, err := a.authority(ctx, obj.GetNamespace())
		if err != nil {
			return nil, err
		}
		filled := obj.DeepCopy()
		return filled, unstructured.SetNestedField(filled.Object, string(authority.bundle()), "data", bundleKey)
	}
	return obj, nil
}

func (a *Applier) fillJob(ctx context.Context, job *unstructured.Unstructured, prepared string) (*unstructured.Unstructured, error) {
	set, err := a.dynamic.Resource(statefulSetsResource).Namespace(job.GetNamespace()).Get(ctx, prepared, getOptions)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", PreparesAnnotation, err)
	}
	revision, _, err := unstructured.NestedString(set.Object, "status", "updateRevision")
	if err != nil {
		return nil, err
	}
	filled := job.DeepCopy()
	return filled, unstructured.SetNestedField(filled.Object, revision, "spec", "template", "metadata", "annotations", PreparesAnnotation)
}

func (a *Applier) fillSecret(ctx context.Context, obj, current *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	annotations := obj.GetAnnotations()
	filled := obj.DeepCopy()
	data, err := secretData(obj)
	if err != nil {
		return nil, err
	}
	kept, err := secretData(current)
	if err != nil {
		return nil, err
	}
	for _, key := range listed(annotations[RandomAnnotation]) {
		data[key] = kept[key]
		if len(data[key]) == 0 {
			data[key] = randomValue()
		}
	}
	if isAuthority(obj) {
		authority, err := readAuthority(kept, time.Now())
		if err != nil {
			if authority, err = newAuthority(time.Now()); err != nil {
				return nil, err
			}
		}
		data[certKey], data[keyKey] = authority.certPEM, authority.keyPEM
	}
	if list, ok := annotations[CertificateAnnotation]; ok {
		authority, err := a.authority(ctx, obj.GetNamespace())
		if err != nil {
			return nil, err
		}
		data[certKey], data[keyKey] = kept[certKey], kept[keyKey]
		if !authority.signed(data[certKey], data[keyKey], listed(list), time.Now()) {
			if data[certKey], data[keyKey], err = authority.issue(listed(list), time.Now()); err != nil {
				return nil, err
			}
		}
		data[bundleKey] = authority.bundle()
	}
	// Server-side apply tracks data only: a key that leaves stringData would stay.
	delete(filled.Object, "stringData")
	delete(filled.Object, "data")
	for key, value := range data {
		if err := unstructured.SetNestedField(filled.Object, base64.StdEncoding.EncodeToString(value), "data", key); err != nil {
			return nil, err
		}
	}
	return filled, nil
}

// authority reads the certificate authority of a namespace from the cluster.
func (a *Applier) authority(ctx context.Context, namespace string) (*authority, error) {
	secret, err := a.dynamic.Resource(secretsResource).Namespace(namespace).Get(ctx, AuthoritySecret, getOptions)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	data, err := secretData(secret)
	if err != nil {
		return nil, err
	}
	found, err := readAuthority(data, time.Now())
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %s: %w", RefOf(secret), err)
	}
	return found, nil
}

// secretData returns the decoded values of a Secret, of stringData too. A nil
// Secret has none.
func secretData(secret *unstructured.Unstructured) (map[string][]byte, error) {
	data := map[string][]byte{}
	if secret == nil {
		return data, nil
	}
	encoded, _, err := unstructured.NestedStringMap(secret.Object, "data")
	if err != nil {
		return nil, err
	}
	for key, value := range encoded {
		// Not the decoder's error: it would quote a part of the value.
		if data[key], err = base64.StdEncoding.DecodeString(value); err != nil {
			return nil, fmt.Errorf("data.%s: not base64", key)
		}
	}
	plain, _, err := unstructured.NestedStringMap(secret.Object, "stringData")
	if err != nil {
		return nil, err
	}
	for key, value := range plain {
		data[key] = []byte(value)
	}
	return data, nil
}

func randomValue() []byte {
	raw := make([]byte, randomBytes)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the program instead
	return base64.RawURLEncoding.AppendEncode(nil, raw)
}
