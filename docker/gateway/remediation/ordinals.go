package remediation

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/coalesce"
)

// ordinalsName begins the names of the ConfigMaps that keep ordinals. There are sixteen,
// by the first digit of the fingerprint: a ConfigMap holds up to a megabyte, which is
// some twenty thousand problems with what the API server notes about each key.
const ordinalsName = "rr-ordinals-"

// ordinals keeps by prefix the highest number that a request's name has had, so that the
// name of a request that was deleted, and with it the correlation id of its audit
// events, is never given again. Callers that come together share a call.
type ordinals struct {
	reads  *coalesce.Group[string, string, int]
	writes *coalesce.Group[string, given, struct{}]
}

// given is a number that was given.
type given struct {
	prefix string
	n      int
}

func newOrdinals(c client.Client, namespace string, timeout time.Duration) *ordinals {
	o := &ordinals{}
	o.reads = coalesce.NewGroup(timeout, func(ctx context.Context, name string, prefixes []string) []coalesce.Result[int] {
		kept := &corev1.ConfigMap{}
		err := client.IgnoreNotFound(c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, kept))
		results := make([]coalesce.Result[int], len(prefixes))
		for i, prefix := range prefixes {
			n, _ := strconv.Atoi(kept.Data[prefix]) // 0 for what is not there or not a number
			results[i] = coalesce.Result[int]{Value: n, Err: err}
		}
		return results
	})
	o.writes = coalesce.NewGroup(timeout, func(ctx context.Context, name string, numbers []given) []coalesce.Result[struct{}] {
		return slices.Repeat([]coalesce.Result[struct{}]{{Err: write(ctx, c, namespace, name, numbers)}}, len(numbers))
	})
	return o
}

// last returns the highest number that names with this fingerprint's prefix have had, or
// 0. It does not know of a request that is being created at the same time.
func (o *ordinals) last(ctx context.Context, fingerprint string) (int, error) {
	n, err := o.reads.Do(ctx, ordinalsName+fingerprint[:1], fingerprint[:prefixDigits])
	if err != nil {
		return 0, fmt.Errorf("ordinals: %w", err)
	}
	return n, nil
}

// keep remembers that a name with that number was given.
func (o *ordinals) keep(ctx context.Context, fingerprint string, n int) error {
	_, err := o.writes.Do(ctx, ordinalsName+fingerprint[:1], given{fingerprint[:prefixDigits], n})
	if err != nil {
		return fmt.Errorf("ordinals: %w", err)
	}
	return nil
}

// write merges numbers into a ConfigMap, which it makes if need be.
func write(ctx context.Context, c client.Client, namespace, name string, numbers []given) error {
	highest := map[string]int{}
	for _, number := range numbers {
		highest[number.prefix] = max(highest[number.prefix], number.n)
	}
	data := make(map[string]string, len(highest))
	for prefix, n := range highest {
		data[prefix] = strconv.Itoa(n)
	}
	patch, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return err
	}
	kept := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	change := func() error { return c.Patch(ctx, kept.DeepCopy(), client.RawPatch(types.MergePatchType, patch)) }
	if err := change(); !apierrors.IsNotFound(err) {
		return err
	}
	kept.Labels = maps.Clone(requestLabels)
	kept.Data = data
	if err := c.Create(ctx, kept.DeepCopy()); !apierrors.IsAlreadyExists(err) {
		return err
	}
	return change()
}
