// Package session is one run of a suite: what its first process prepares and hands to
// the others, and what is left to remove at the end.
package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/test/e2e/cluster"
	"kubernaut.ai/e2e/test/e2e/journal"
	"kubernaut.ai/e2e/test/e2e/target"
)

// Session is the same in every process of a run.
type Session struct {
	Target *target.Target    `json:"target"`
	Run    string            `json:"run"`    // unique, so that two runs on one cluster do not meet
	Tokens map[string]string `json:"tokens"` // by what their account may do
}

// Begin starts a run in this environment. The first process calls it, fills Tokens and
// hands Encode's bytes to the others.
func Begin(t *target.Target) *Session {
	return &Session{Target: t, Run: uuid.NewString()[:8], Tokens: map[string]string{}}
}

// Encode is the session as the payload between processes. It holds tokens.
func (s *Session) Encode() ([]byte, error) { return json.Marshal(s) }

// Decode reads what Encode wrote.
func Decode(payload []byte) (*Session, error) {
	s := &Session{}
	if err := json.Unmarshal(payload, s); err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	return s, nil
}

// Account makes a ServiceAccount of this run that is bound to these Roles, and returns
// its token. Not waited for: see cluster.AwaitAccess.
func (s *Session) Account(ctx context.Context, c *cluster.Cluster, name string, roles ...string) (string, error) {
	account := s.Name(name)
	token, err := c.Sender(ctx, account, s.Run)
	if err != nil {
		return "", err
	}
	for _, role := range roles {
		if err := c.Allow(ctx, account, role, s.Run); err != nil {
			return "", err
		}
	}
	return token, nil
}

// Name is a name of this run's own.
func (s *Session) Name(name string) string { return "e2e-" + s.Run + "-" + name }

// deletionsAtOnce keeps the API server busy and its queues short.
const deletionsAtOnce = 8

// End removes what the run made: accounts, namespaces, volumes and the
// RemediationRequests about them.
func (s *Session) End(ctx context.Context, c *cluster.Cluster) error {
	mine := client.MatchingLabels{cluster.LabelRun: s.Run}
	var namespaces corev1.NamespaceList
	var volumes corev1.PersistentVolumeList
	var requests v1alpha1.RemediationRequestList
	if err := errors.Join(
		c.API.List(ctx, &namespaces, mine),
		c.API.List(ctx, &volumes, mine),
		c.API.List(ctx, &requests, client.InNamespace(c.Target.Namespace)),
		c.Forget(ctx, s.Run),
	); err != nil {
		return err
	}
	gone := map[string]bool{}
	var doomed []client.Object
	for i := range namespaces.Items {
		gone[namespaces.Items[i].Name] = true
		doomed = append(doomed, &namespaces.Items[i])
	}
	for i := range volumes.Items {
		gone["/"+volumes.Items[i].Name] = true
		doomed = append(doomed, &volumes.Items[i])
	}
	for i := range requests.Items {
		about := requests.Items[i].Spec.TargetResource
		if gone[about.Namespace] || (about.Namespace == "" && gone["/"+about.Name]) {
			doomed = append(doomed, &requests.Items[i])
		}
	}
	errs := make([]error, len(doomed))
	var deletions errgroup.Group
	deletions.SetLimit(deletionsAtOnce)
	// Namespaces last: while they go the API server is busy, and by them an end that was interrupted is taken up again.
	for i, object := range slices.Backward(doomed) {
		deletions.Go(func() error {
			errs[i] = c.API.Delete(ctx, object)
			if _, request := object.(*v1alpha1.RemediationRequest); request {
				errs[i] = client.IgnoreNotFound(errs[i])
			}
			return nil
		})
	}
	return errors.Join(append(errs, deletions.Wait())...)
}

// logsTimeout bounds reading logs for Evidence: the API server may be what is broken.
const logsTimeout = 5 * time.Second

// Evidence is what a failed spec shows: what it said and heard last, and what the apps'
// pods logged about these requests.
func Evidence(ctx context.Context, c *cluster.Cluster, j *journal.Journal, apps ...string) string {
	exchanges := j.Exchanges()
	var ids []string
	var b strings.Builder
	for _, e := range exchanges {
		b.WriteString(e.String())
		if e.RequestID != "" {
			ids = append(ids, e.RequestID)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, logsTimeout)
	defer cancel()
	for _, app := range apps {
		lines, err := c.AllLogs(ctx, app)
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", app, err)
		}
		for _, line := range lines {
			if slices.ContainsFunc(ids, func(id string) bool { return strings.Contains(line, id) }) {
				fmt.Fprintf(&b, "%s: %s\n", app, line)
			}
		}
	}
	return b.String()
}
