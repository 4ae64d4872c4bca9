package session

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/test/e2e/cluster"
)

// EnvAlone is the environment variable that tells a suite that it has the cluster for
// itself: whoever set it holds the cluster's lock.
const EnvAlone = "E2E_ALONE"

// Sweep removes what earlier runs have left, because they were interrupted or kept it as
// evidence of a failure. Without EnvAlone it does nothing: another run may be at work.
func (s *Session) Sweep(ctx context.Context, c *cluster.Cluster, getenv func(string) string) error {
	if getenv(EnvAlone) == "" {
		return nil
	}
	var namespaces corev1.NamespaceList
	var volumes corev1.PersistentVolumeList
	var accounts corev1.ServiceAccountList
	marked := client.HasLabels{cluster.LabelRun}
	if err := errors.Join(
		c.API.List(ctx, &namespaces, marked),
		c.API.List(ctx, &volumes, marked),
		c.API.List(ctx, &accounts, marked, client.InNamespace(c.Target.Namespace)),
	); err != nil {
		return err
	}
	runs := map[string]bool{}
	for _, namespace := range namespaces.Items {
		if namespace.DeletionTimestamp == nil {
			runs[namespace.Labels[cluster.LabelRun]] = true
		}
	}
	for _, volume := range volumes.Items {
		runs[volume.Labels[cluster.LabelRun]] = true
	}
	for _, account := range accounts.Items {
		runs[account.Labels[cluster.LabelRun]] = true
	}
	delete(runs, s.Run)
	var errs []error
	for run := range runs {
		errs = append(errs, (&Session{Target: s.Target, Run: run}).End(ctx, c))
	}
	return errors.Join(errs...)
}
