// Package remediation makes RemediationRequests: exactly one for each problem that
// is open, and a count of how often it was reported.
//
// The API server is the arbiter, not this process: a request's name follows from the
// fingerprint and the requests that it has had, so two replicas that see a new
// problem at once create the same name, and one of them is told that it exists. The
// count is written with the resource version that it was read at, and read again when
// somebody was faster; that makes it safe to remember what was read. A request without status.deduplication counts as seen once, so
// a crash between creating it and writing its status loses nothing.
package remediation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/expirable"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/docker/gateway/coalesce"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/internal/trace"
)

const (
	createdAt = "kubernaut.ai/created-at"
	// signalID tells a request that this call created, but was never told so, from
	// one that another created.
	signalID = "kubernaut.ai/signal-id"

	// maxBytes is the largest request that is sent to be stored. etcd takes 1.5 MiB,
	// and the API server adds the names of all fields, at worst as much as half of the
	// rest. It answers what etcd refuses with 500, which would look like its own
	// trouble. A body of the largest size makes a request of 600 KiB, unless it is full
	// of characters that JSON escapes.
	maxBytes = 1000 << 10

	// maxKnown bounds what is remembered of open requests, at about 500 bytes each.
	maxKnown = 4096

	// maxPause bounds the pause before a lost race is run again. Two or three
	// replicas at one request need no more.
	maxPause = 50 * time.Millisecond
)

// Report is a signal whose workload is known.
type Report struct {
	signal.Signal
	Workload    resource.Ref
	Fingerprint string
}

// Outcome is what became of a report.
type Outcome struct {
	Created   bool // the report opened the request; otherwise it was counted on it
	Name      string
	Namespace string
	Count     int64 // which report about the problem this was; the first is 1
	First     time.Time
	Last      time.Time
}

// Book keeps the requests in one namespace. It is safe for concurrent use.
type Book struct {
	client    client.Client
	namespace string
	now       func() time.Time
	group     *coalesce.Group[string, Report, Outcome]

	// known holds by fingerprint the open request as it was last read or written. It
	// saves looking for it: a count that is written at its version proves that nothing
	// has changed since, and one that is refused makes it be looked for.
	known *expirable.LRU[string, *v1alpha1.RemediationRequest]
}

// NewBook returns a book of the requests in namespace. The client must not read from
// a cache. Work on one fingerprint ends after timeout.
func NewBook(c client.Client, namespace string, timeout time.Duration) *Book {
	b := &Book{client: c, namespace: namespace, now: time.Now}
	b.known = expirable.NewLRU[string, *v1alpha1.RemediationRequest](maxKnown, nil, 0)
	b.group = coalesce.NewGroup(timeout, b.enter)
	return b
}

// Register creates a request for the report, or counts the report on the request
// that is open for its fingerprint. When it returns without an error, what it says
// is stored. With an error, the report may have been counted all the same.
func (b *Book) Register(ctx context.Context, report Report) (Outcome, error) {
	return b.group.Do(ctx, report.Fingerprint, report)
}

// Prefix returns what the names of a fingerprint's requests begin with.
func Prefix(fingerprint string) string { return "rr-" + fingerprint[:12] + "-" }

// enter works off the reports of one fingerprint that came together. The first may
// open a request, the others are counted on it with one write.
func (b *Book) enter(ctx context.Context, fingerprint string, reports []Report) []coalesce.Result[Outcome] {
	var results []coalesce.Result[Outcome]
	for len(results) < len(reports) {
		outcomes, err := b.try(ctx, fingerprint, reports[len(results):])
		for _, outcome := range outcomes {
			results = append(results, coalesce.Result[Outcome]{Value: outcome})
		}
		if err == nil {
			continue
		}
		if errors.Is(err, errAgain) {
			if err = pause(ctx); err == nil {
				continue
			}
		}
		for len(results) < len(reports) {
			results = append(results, coalesce.Result[Outcome]{Err: fmt.Errorf("remediation request of %s: %w", fingerprint[:12], err)})
		}
	}
	return results
}

// errAgain says that somebody else was faster: what was read is no longer true.
var errAgain = errors.New("changed meanwhile")

// try looks at what is there and takes one step: all reports are counted, or the
// first opens a request. It returns the outcomes of the reports that are stored.
func (b *Book) try(ctx context.Context, fingerprint string, reports []Report) ([]Outcome, error) {
	now := b.now()
	if open, found := b.known.Get(fingerprint); found && holds(open, now) {
		outcomes, err := b.count(ctx, open, len(reports), now)
		if !errors.Is(err, errAgain) {
			return outcomes, err
		}
	}
	b.known.Remove(fingerprint)
	list := &v1alpha1.RemediationRequestList{}
	err := b.client.List(ctx, list, client.InNamespace(b.namespace), client.MatchingFields{"spec.signalFingerprint": fingerprint})
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	if open := holding(list.Items, now); open != nil {
		return b.count(ctx, open, len(reports), now)
	}
	created, err := b.create(ctx, fingerprint, nextOrdinal(list.Items, fingerprint), reports[0], now)
	if err != nil {
		return nil, err
	}
	b.remember(created)
	outcome := Outcome{
		Created: true, Name: created.Name, Namespace: created.Namespace, Count: 1, First: reports[0].Received, Last: reports[0].Received,
	}
	if len(reports) == 1 {
		b.begin(ctx, created)
	}
	return []Outcome{outcome}, nil
}

// remember keeps what the next count needs of a request; the payload is not kept.
func (b *Book) remember(rr *v1alpha1.RemediationRequest) {
	if rr.DeletionTimestamp != nil {
		return
	}
	b.known.Add(rr.Spec.SignalFingerprint, &v1alpha1.RemediationRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: rr.Namespace, Name: rr.Name, ResourceVersion: rr.ResourceVersion},
		Spec:       v1alpha1.RemediationRequestSpec{SignalFingerprint: rr.Spec.SignalFingerprint, ReceivedTime: rr.Spec.ReceivedTime},
		Status:     rr.Status,
	})
}

// holding returns the newest request that a report has to be counted on, or nil when
// a new one is needed. A request that is being deleted holds nothing: what is counted
// on it will be gone.
func holding(requests []v1alpha1.RemediationRequest, now time.Time) *v1alpha1.RemediationRequest {
	var newest *v1alpha1.RemediationRequest
	for i := range requests {
		rr := &requests[i]
		if rr.DeletionTimestamp == nil && holds(rr, now) && (newest == nil || ordinal(rr) > ordinal(newest)) {
			newest = rr
		}
	}
	return newest
}

// holds reports whether no new request may be made beside this one: it is being
// worked on, or a person has to look first, or it is too early to try again.
func holds(rr *v1alpha1.RemediationRequest, now time.Time) bool {
	if !rr.Status.OverallPhase.Terminal() {
		return true
	}
	if done := rr.Status.CompletionStatus; done != nil && done.Outcome == v1alpha1.OutcomeManualReviewRequired {
		return true
	}
	routing := rr.Status.RoutingStatus
	return routing != nil && routing.NextAllowedExecution != nil && routing.NextAllowedExecution.After(now)
}

// ordinal returns the number at the end of a request's name, or 0 if the Gateway did
// not give it.
func ordinal(rr *v1alpha1.RemediationRequest) int {
	if len(rr.Spec.SignalFingerprint) < 12 {
		return 0
	}
	digits, found := strings.CutPrefix(rr.Name, Prefix(rr.Spec.SignalFingerprint))
	n, err := strconv.Atoi(digits)
	if !found || err != nil || n < 0 {
		return 0
	}
	return n
}

// nextOrdinal returns one more than the highest ordinal that the fingerprint has had.
func nextOrdinal(requests []v1alpha1.RemediationRequest, fingerprint string) int {
	highest := 0
	for i := range requests {
		if requests[i].Spec.SignalFingerprint == fingerprint {
			highest = max(highest, ordinal(&requests[i]))
		}
	}
	return highest + 1
}

// create makes the request of that ordinal, or of the next one whose name is not
// taken by another fingerprint with the same first digits. When the name is taken by
// a request of the same fingerprint, somebody was faster: errAgain.
func (b *Book) create(ctx context.Context, fingerprint string, n int, report Report, now time.Time) (*v1alpha1.RemediationRequest, error) {
	id := uuid.NewString()
	for ; ; n++ {
		rr, err := build(report, b.namespace, Prefix(fingerprint)+strconv.Itoa(n), id, now)
		if err != nil {
			return nil, err
		}
		err = b.client.Create(ctx, rr)
		if err == nil {
			return rr, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("create %s: %w", rr.Name, err)
		}
		present := &v1alpha1.RemediationRequest{}
		err = b.client.Get(ctx, client.ObjectKeyFromObject(rr), present)
		switch {
		case apierrors.IsNotFound(err):
			return nil, errAgain
		case err != nil:
			return nil, fmt.Errorf("get %s: %w", rr.Name, err)
		case present.Annotations[signalID] == id:
			return present, nil // the first answer was lost
		case present.Spec.SignalFingerprint == fingerprint:
			return nil, errAgain
		}
	}
}

// build returns the request that a report opens.
func build(report Report, namespace, name, id string, now time.Time) (*v1alpha1.RemediationRequest, error) {
	provider, err := json.Marshal(map[string]any{
		"namespace": report.Namespace,
		"resource":  describe(report.Target),
		"owner":     describe(report.Workload),
	})
	if err != nil {
		return nil, fmt.Errorf("provider data: %w", err)
	}
	rr := &v1alpha1.RemediationRequest{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      name,
			Labels: map[string]string{
				"app.kubernetes.io/managed-by": "gateway-service",
				"app.kubernetes.io/component":  "remediation",
			},
			Annotations: map[string]string{createdAt: now.UTC().Format(time.RFC3339), signalID: id},
		},
		Spec: v1alpha1.RemediationRequestSpec{
			SignalFingerprint: report.Fingerprint,
			SignalName:        report.Name,
			Severity:          report.Severity,
			SignalType:        v1alpha1.SignalTypeAlert,
			SignalSource:      string(report.Source),
			TargetType:        v1alpha1.TargetKubernetes,
			TargetResource: v1alpha1.TargetResource{
				Kind: report.Target.Kind, Name: report.Target.Name,
				Namespace: report.Target.Namespace, APIVersion: report.Target.APIVersion,
			},
			TargetReason:      report.TargetReason,
			ClusterID:         report.Cluster,
			ReceivedTime:      metav1.NewTime(report.Received),
			SignalLabels:      report.Labels,
			SignalAnnotations: report.Annotations,
			ProviderData:      string(provider),
			OriginalPayload:   report.Payload,
		},
	}
	if !report.Firing.IsZero() {
		rr.Spec.FiringTime = &metav1.Time{Time: report.Firing}
	}
	wire, err := json.Marshal(rr)
	if err != nil {
		return nil, fmt.Errorf("encoding %s: %w", name, err)
	}
	if len(wire) > maxBytes {
		return nil, apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("%s: %d bytes, at most %d can be stored", name, len(wire), maxBytes))
	}
	return rr, nil
}

// describe names an object for providerData.
func describe(ref resource.Ref) map[string]string {
	return map[string]string{"kind": ref.Kind, "name": ref.Name, "namespace": ref.Namespace, "apiVersion": ref.APIVersion}
}

// count adds n reports to a request with one write.
func (b *Book) count(ctx context.Context, rr *v1alpha1.RemediationRequest, n int, now time.Time) ([]Outcome, error) {
	seen := deduplication(rr)
	before := seen.OccurrenceCount
	seen.OccurrenceCount += int64(n)
	if last := metav1.NewTime(now); last.After(seen.LastSeenAt.Time) {
		seen.LastSeenAt = last
	}
	if err := b.write(ctx, rr, seen); err != nil {
		return nil, err
	}
	outcomes := make([]Outcome, n)
	for i := range outcomes {
		outcomes[i] = Outcome{
			Name: rr.Name, Namespace: rr.Namespace, Count: before + int64(i) + 1,
			First: seen.FirstSeenAt.Time, Last: seen.LastSeenAt.Time,
		}
	}
	return outcomes, nil
}

// begin writes the first count of a new request, for those who read it. Nothing
// depends on it, so the report is accepted whether it succeeds or not.
func (b *Book) begin(ctx context.Context, rr *v1alpha1.RemediationRequest) {
	for {
		err := b.write(ctx, rr, deduplication(rr))
		if errors.Is(err, errAgain) {
			err = b.client.Get(ctx, client.ObjectKeyFromObject(rr), rr)
			if err == nil && rr.Status.Deduplication == nil {
				continue
			}
		}
		if client.IgnoreNotFound(err) != nil {
			trace.Log(ctx).Warn("first count not written; its absence reads as 1", "remediation_request", rr.Name, "error", err)
		}
		return
	}
}

// deduplication returns the count of a request; see the package's comment for one
// that has none.
func deduplication(rr *v1alpha1.RemediationRequest) v1alpha1.DeduplicationStatus {
	if seen := rr.Status.Deduplication; seen != nil {
		return *seen
	}
	return v1alpha1.DeduplicationStatus{FirstSeenAt: rr.Spec.ReceivedTime, LastSeenAt: rr.Spec.ReceivedTime, OccurrenceCount: 1}
}

// write stores a count unless the request has changed since rr was read: errAgain. A
// merge patch leaves alone what other controllers own. A write whose answer was lost
// is made again on what is then there, so in that case a count may be one too high,
// and never too low.
func (b *Book) write(ctx context.Context, rr *v1alpha1.RemediationRequest, seen v1alpha1.DeduplicationStatus) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": rr.ResourceVersion},
		"status":   map[string]any{"deduplication": seen},
	})
	if err != nil {
		return fmt.Errorf("count of %s: %w", rr.Name, err)
	}
	changed := &v1alpha1.RemediationRequest{ObjectMeta: metav1.ObjectMeta{Namespace: rr.Namespace, Name: rr.Name}}
	err = b.client.Status().Patch(ctx, changed, client.RawPatch(types.MergePatchType, patch))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return errAgain
	}
	if err != nil {
		return fmt.Errorf("count on %s: %w", rr.Name, err)
	}
	b.remember(changed)
	return nil
}

// pause waits a short random time, so that replicas that raced do not race again in step.
func pause(ctx context.Context) error {
	timer := time.NewTimer(time.Millisecond + rand.N(maxPause))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
