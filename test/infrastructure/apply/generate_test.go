package apply

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/kubernetes/scheme"
)

func secret(name, kind string, annotations map[string]any, data map[string]any) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": kind,
		"metadata":   map[string]any{"name": name, "namespace": "apps", "annotations": annotations},
		"stringData": data,
	}}
}

func values(t *testing.T, obj *unstructured.Unstructured) map[string][]byte {
	t.Helper()
	data, err := secretData(obj)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestFillRandom(t *testing.T) {
	a := &Applier{}
	obj := secret("credentials", "Opaque", map[string]any{RandomAnnotation: "password, token"}, map[string]any{"user": "me"})
	first, err := a.fill(t.Context(), obj, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := values(t, first)
	if string(got["user"]) != "me" {
		t.Errorf("user: got %q, want the manifest's value", got["user"])
	}
	if len(got["password"]) != 32 || len(got["token"]) != 32 || string(got["password"]) == string(got["token"]) {
		t.Errorf("got lengths %d and %d, want two different values of 32 characters", len(got["password"]), len(got["token"]))
	}
	if _, ok := first.Object["stringData"]; ok {
		t.Error("stringData is sent; server-side apply does not track it")
	}
	if _, ok := obj.Object["data"]; ok {
		t.Error("the caller's object was changed")
	}

	t.Run("keeps what the cluster has and adds what it lacks", func(t *testing.T) {
		current := secret("credentials", "Opaque", nil, map[string]any{"password": "kept", "foreign": "x"})
		filled, err := a.fill(t.Context(), obj, current)
		if err != nil {
			t.Fatal(err)
		}
		got := values(t, filled)
		if string(got["password"]) != "kept" || len(got["token"]) != 32 {
			t.Errorf("got password kept=%v, token of %d characters", string(got["password"]) == "kept", len(got["token"]))
		}
		if _, ok := got["foreign"]; ok {
			t.Error("took over a key that belongs to somebody else")
		}
	})
}

func TestFillCertificates(t *testing.T) {
	ca := secret(AuthoritySecret, "kubernetes.io/tls", map[string]any{AuthorityAnnotation: "true"}, nil)
	ca, err := (&Applier{}).fill(t.Context(), ca, nil)
	if err != nil {
		t.Fatal(err)
	}
	a := &Applier{dynamic: dynamicfake.NewSimpleDynamicClient(scheme.Scheme, ca)}
	server := secret("server-tls", "kubernetes.io/tls", map[string]any{CertificateAnnotation: "web, web.apps.svc,127.0.0.1"}, nil)
	issued, err := a.fill(t.Context(), server, nil)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("a client that trusts the bundle accepts every name", func(t *testing.T) {
		bundle, err := a.fill(t.Context(), &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": "e2e-ca", "namespace": "apps", "annotations": map[string]any{BundleAnnotation: "true"}},
		}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, _, _ := unstructured.NestedString(bundle.Object, "data", "ca.crt")
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(text)) {
			t.Fatal("the bundle holds no certificate")
		}
		pair, err := tls.X509KeyPair(values(t, issued)["tls.crt"], values(t, issued)["tls.key"])
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"web", "web.apps.svc", "127.0.0.1"} {
			if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "other"}); err == nil {
			t.Error("other: accepted")
		}
		if string(values(t, issued)["ca.crt"]) != text {
			t.Error("the Secret's ca.crt is not the bundle")
		}
	})

	t.Run("authority and certificate are kept", func(t *testing.T) {
		again, err := a.fill(t.Context(), server, issued)
		if err != nil {
			t.Fatal(err)
		}
		if string(values(t, again)["tls.crt"]) != string(values(t, issued)["tls.crt"]) {
			t.Error("the certificate was issued anew")
		}
		caAgain, err := a.fill(t.Context(), secret(AuthoritySecret, "kubernetes.io/tls", map[string]any{AuthorityAnnotation: "true"}, nil), ca)
		if err != nil {
			t.Fatal(err)
		}
		if string(values(t, caAgain)["tls.key"]) != string(values(t, ca)["tls.key"]) {
			t.Error("the authority was made anew")
		}
	})

	t.Run("a certificate for other names or of another authority is issued anew", func(t *testing.T) {
		more := secret("server-tls", "kubernetes.io/tls", map[string]any{CertificateAnnotation: "web,new"}, nil)
		again, err := a.fill(t.Context(), more, issued)
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(values(t, again)["tls.crt"])
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(cert.DNSNames, []string{"web", "new"}) {
			t.Errorf("got %q, want the new names", cert.DNSNames)
		}
		stranger, err := newAuthority(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if data := values(t, issued); stranger.signed(data["tls.crt"], data["tls.key"], []string{"web", "web.apps.svc", "127.0.0.1"}, time.Now()) {
			t.Error("took another authority's certificate for its own")
		}
	})

	t.Run("a certificate near its end is issued anew", func(t *testing.T) {
		authority, err := readAuthority(values(t, ca), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		data := values(t, issued)
		names := []string{"web", "web.apps.svc", "127.0.0.1"}
		if !authority.signed(data["tls.crt"], data["tls.key"], names, time.Now().Add(lifetime-2*renewBefore)) {
			t.Error("two days before its end: not kept")
		}
		if authority.signed(data["tls.crt"], data["tls.key"], names, time.Now().Add(lifetime-renewBefore/2)) {
			t.Error("half a day before its end: kept")
		}
	})

	t.Run("without an authority the error names it", func(t *testing.T) {
		none := &Applier{dynamic: dynamicfake.NewSimpleDynamicClient(scheme.Scheme)}
		_, err := none.fill(context.WithoutCancel(t.Context()), server, nil)
		if want := `certificate authority: secrets "e2e-ca-key" not found`; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	})
}

func TestSecretDataDoesNotQuoteValues(t *testing.T) {
	broken := &unstructured.Unstructured{Object: map[string]any{"data": map[string]any{"password": "s3cr=t!"}}}
	_, err := secretData(broken)
	if want := "data.password: not base64"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
