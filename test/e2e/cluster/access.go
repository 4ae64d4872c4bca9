package cluster

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// LabelRun marks what a suite's run made outside of its own namespaces.
const LabelRun = "e2e.kubernaut.ai/run"

// tokenSeconds is how long senders' tokens live: longer than any run, and the API
// server issues none for less than ten minutes.
const tokenSeconds = 3600

// reviewInterval is how often a permission is asked for until it is there. RBAC has no
// watch that tells when the authorizer has seen a binding; it takes milliseconds.
const reviewInterval = 20 * time.Millisecond

// Audiences are what a sender's token is for: the services, and not the API server.
func Audiences() []string { return []string{"gateway-service", "data-storage-service"} }

// Sender makes a ServiceAccount in the services' namespace and returns a token of it for
// the services. It may do nothing until it is allowed to.
func (c *Cluster) Sender(ctx context.Context, name, run string) (token string, err error) {
	account := &corev1.ServiceAccount{ObjectMeta: c.meta(name, run)}
	if err := c.API.Create(ctx, account); err != nil {
		return "", fmt.Errorf("ServiceAccount/%s: %w", name, err)
	}
	return c.Token(ctx, name, Audiences()...)
}

// Token requests a token of a ServiceAccount for these audiences; without any it is for
// the API server.
func (c *Cluster) Token(ctx context.Context, account string, audiences ...string) (string, error) {
	return c.token(ctx, account, authenticationv1.TokenRequestSpec{Audiences: audiences})
}

// BoundToken is a sender's token that ends with a Secret.
func (c *Cluster) BoundToken(ctx context.Context, account string, to *corev1.Secret) (string, error) {
	return c.token(ctx, account, authenticationv1.TokenRequestSpec{
		Audiences:      Audiences(),
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: to.Name, UID: to.UID},
	})
}

func (c *Cluster) token(ctx context.Context, account string, spec authenticationv1.TokenRequestSpec) (string, error) {
	spec.ExpirationSeconds = new(int64(tokenSeconds))
	answer, err := c.Kube.CoreV1().ServiceAccounts(c.Target.Namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("ServiceAccount/%s: token: %w", account, err)
	}
	return answer.Status.Token, nil
}

// Allow binds a sender to a Role of the services' namespace.
func (c *Cluster) Allow(ctx context.Context, account, role, run string) error {
	binding := &rbacv1.RoleBinding{
		ObjectMeta: c.meta(account+"-"+role, run),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: c.Target.Namespace, Name: account}},
	}
	if err := c.API.Create(ctx, binding); err != nil {
		return fmt.Errorf("RoleBinding/%s: %w", binding.Name, err)
	}
	return nil
}

// Deny takes back what Allow gave.
func (c *Cluster) Deny(ctx context.Context, account, role string) error {
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: c.Target.Namespace, Name: account + "-" + role}}
	if err := c.API.Delete(ctx, binding); err != nil {
		return fmt.Errorf("RoleBinding/%s: %w", binding.Name, err)
	}
	return nil
}

// Role makes a Role for one verb on one Service of the services' namespace.
func (c *Cluster) Role(ctx context.Context, name, run, verb, service string) error {
	role := &rbacv1.Role{ObjectMeta: c.meta(name, run), Rules: []rbacv1.PolicyRule{{
		APIGroups: []string{""}, Resources: []string{"services"}, ResourceNames: []string{service}, Verbs: []string{verb},
	}}}
	if err := c.API.Create(ctx, role); err != nil {
		return fmt.Errorf("Role/%s: %w", name, err)
	}
	return nil
}

// AwaitAccess returns when the API server grants the token's account the verb on the
// Service. The token itself is for the services only, so its account is asked about.
func (c *Cluster) AwaitAccess(ctx context.Context, token, verb, service string) error {
	claims, err := claimsOf(token)
	if err != nil {
		return err
	}
	user, _ := claims["sub"].(string)
	review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User:               user,
		Groups:             []string{"system:serviceaccounts", "system:serviceaccounts:" + c.Target.Namespace, "system:authenticated"},
		ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: c.Target.Namespace, Resource: "services", Name: service, Verb: verb},
	}}
	return wait.PollUntilContextCancel(ctx, reviewInterval, true, func(ctx context.Context) (bool, error) {
		answer, err := c.Kube.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
		if err != nil {
			return false, fmt.Errorf("access review of %s on services/%s: %w", verb, service, err)
		}
		return answer.Status.Allowed, nil
	})
}

// Forget removes the accounts, roles and bindings that a run made.
func (c *Cluster) Forget(ctx context.Context, run string) error {
	where := []client.DeleteAllOfOption{client.InNamespace(c.Target.Namespace), client.MatchingLabels{LabelRun: run}}
	return errors.Join(
		c.API.DeleteAllOf(ctx, &rbacv1.RoleBinding{}, where...),
		c.API.DeleteAllOf(ctx, &rbacv1.Role{}, where...),
		c.API.DeleteAllOf(ctx, &corev1.ServiceAccount{}, where...),
	)
}

func (c *Cluster) meta(name, run string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: c.Target.Namespace, Name: name, Labels: map[string]string{LabelRun: run}}
}

// Expire returns the token as the API server would have issued it some time ago: the
// same claims, over since a minute, signed with the cluster's own key (PEM). The API
// server issues no token for less than ten minutes, which no spec can wait for.
func Expire(token string, key []byte) (string, error) {
	claims, err := claimsOf(token)
	if err != nil {
		return "", err
	}
	over := time.Now().Add(-time.Minute)
	claims["exp"], claims["iat"], claims["nbf"] = over.Unix(), over.Add(-time.Hour).Unix(), over.Add(-time.Hour).Unix()
	raw, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	signed := token[:strings.Index(token, ".")] + "." + base64.RawURLEncoding.EncodeToString(raw)
	signature, err := sign(key, sha256.Sum256([]byte(signed)))
	if err != nil {
		return "", err
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// claimsOf returns what a JSON Web Token says.
func claimsOf(token string) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("token: not a JWT")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("token: claims: %w", err)
	}
	var claims map[string]any
	if err := json.Unmarshal(raw, &claims); err != nil {
		return nil, fmt.Errorf("token: claims: %w", err)
	}
	return claims, nil
}

// sign signs as RS256 or ES256 do: kubeadm makes keys of either kind.
func sign(pemKey []byte, digest [sha256.Size]byte) ([]byte, error) {
	block, _ := pem.Decode(pemKey)
	if block == nil {
		return nil, errors.New("signing key: not PEM")
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			return nil, err
		}
		size := (key.Curve.Params().BitSize + 7) / 8
		signature := make([]byte, 2*size)
		r.FillBytes(signature[:size])
		s.FillBytes(signature[size:])
		return signature, nil
	}
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signing key: neither ECDSA nor RSA: %w", err)
	}
	return rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
}

// Remove deletes a sender's ServiceAccount, which ends its tokens.
func (c *Cluster) Remove(ctx context.Context, account string) error {
	return c.API.Delete(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: c.Target.Namespace, Name: account}})
}
