// Package remediation makes RemediationRequests: exactly one for each problem that
// is open, and a count of how often it was reported.
//
// The API server is the arbiter, not this process: a request's name follows from the
// fingerprint and the requests that it has had, deleted ones included, so two replicas that see a new
// problem at once create the same name, and one of them is told that it exists. The
// count is written with the resource version that it was read at, and read again when
// somebody was faster; that makes it safe to remember what was read. Beside it stands who
// wrote it, so that a write whose answer was lost is not made twice. A request without
// status.deduplication counts as seen once, so a crash between creating it and writing
// its status loses nothing.
package remediation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/golang-lru/v2/expirable"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"kubernaut.ai/e2e/docker/gateway/api/v1alpha1"
	"kubernaut.ai/e2e/docker/gateway/coalesce"
	"kubernaut.ai/e2e/docker/gateway/kube"
	"kubernaut.ai/e2e/docker/gateway/resource"
	"kubernaut.ai/e2e/docker/gateway/signal"
	"kubernaut.ai/e2e/docker/internal/panics"
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

	// patience is how long a write that was not answered is repeated to learn whether it
	// was done. It outlasts the restart of an API server. The end of the process cuts it.
	patience = 30 * time.Second

	// maxWriters is how many Gateways' latest writes a count names. A write is looked for
	// within patience, in which no more than these will have written.
	maxWriters = 8

	// maxPause bounds the pause before a lost race is run again. Two or three
	// replicas at one request need no more.
	maxPause = 50 * time.Millisecond
)

// Report is a signal whose workload is known.
type Report struct {
	signal.Signal
	Workload    resource.Ref
	Fingerprint string

	// Settled is told, once, what became of the report, when that is known, whether
	// somebody still waits for it or not. It may be nil, and must not block.
	Settled func(Outcome, error)

	leave context.CancelCauseFunc // lets Register return with this error, while the work goes on
}

func (r Report) settled(outcome Outcome, err error) {
	if r.Settled != nil {
		r.Settled(outcome, err)
	}
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
	ordinals  *ordinals
	writer    string        // this process, in the counts that it writes
	patience  time.Duration // how long the end of a write that was not answered is looked for
	doubtful  sync.Map      // fingerprints of which a write was not answered, while its end is looked for

	// known holds by fingerprint the open request as it was last read or written. It
	// saves looking for it: a count that is written at its version proves that nothing
	// has changed since, and one that is refused makes it be looked for.
	known *expirable.LRU[string, *v1alpha1.RemediationRequest]
}

// NewBook returns a book of the requests in namespace. The client must not read from
// a cache. Work on one fingerprint ends after timeout, unless it has written something
// and was not answered: see Register.
func NewBook(c client.Client, namespace string, timeout time.Duration) *Book {
	b := &Book{
		client: c, namespace: namespace, now: time.Now, writer: uuid.NewString()[:8], patience: patience,
		ordinals: newOrdinals(c, namespace, timeout),
	}
	b.known = expirable.NewLRU[string, *v1alpha1.RemediationRequest](maxKnown, nil, 0)
	b.group = coalesce.NewGroup(timeout, b.enter)
	return b
}

// Register creates a request for the report, or counts the report on the request
// that is open for its fingerprint. When it returns without an error, what it says
// is stored. It returns when ctx ends, and when a write was not answered, whatever the
// work on the report does then; what becomes of it only report.Settled is told.
//
// A write that was not answered is repeated, beyond the end of the work's time if need
// be, until it is known whether it was done. Only if that is not known after half a
// minute Settled is told ErrUnknown; all other errors say to it that nothing was stored.
func (b *Book) Register(ctx context.Context, report Report) (Outcome, error) {
	if _, doubtful := b.doubtful.Load(report.Fingerprint); doubtful {
		// The line is held up by a write that was not answered. While nothing else is
		// answered either, nobody need wait in it.
		if _, err := b.list(ctx, report.Fingerprint); err != nil {
			report.settled(Outcome{}, err)
			return Outcome{}, err
		}
	}
	waiting, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	report.leave = leave
	outcome, err := b.group.Do(waiting, report.Fingerprint, report)
	if errors.Is(err, coalesce.ErrNotBegun) {
		report.settled(Outcome{}, err)
	}
	if err != nil && ctx.Err() == nil && waiting.Err() != nil {
		err = context.Cause(waiting)
	}
	return outcome, err
}

// Wait returns when no report is being worked on, or when ctx ends. Register must not be
// called at the same time.
func (b *Book) Wait(ctx context.Context) error { return b.group.Wait(ctx) }

// ErrUnknown says that a report may be stored and may not.
var ErrUnknown = errors.New("not known whether it was stored")

// Prefix returns what the names of a fingerprint's requests begin with.
func Prefix(fingerprint string) string { return "rr-" + fingerprint[:prefixDigits] + "-" }

// prefixDigits is how much of a fingerprint is in a request's name.
const prefixDigits = 12

// enter works off the reports of one fingerprint that came together. The first may
// open a request, the others are counted on it with one write.
func (b *Book) enter(ctx context.Context, fingerprint string, reports []Report) []coalesce.Result[Outcome] {
	results := make([]coalesce.Result[Outcome], 0, len(reports))
	err := panics.Catch(func() error {
		lost := attempt{doubt: func(err error) {
			b.doubtful.Store(fingerprint, true)
			for _, report := range reports[len(results):] {
				if report.leave != nil {
					report.leave(err)
				}
			}
		}}
		for len(results) < len(reports) {
			outcomes, err := b.try(ctx, fingerprint, reports[len(results):], &lost)
			for _, outcome := range outcomes {
				results = append(results, coalesce.Result[Outcome]{Value: outcome})
			}
			if errors.Is(err, errAgain) {
				err = pause(ctx)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	b.doubtful.Delete(fingerprint)
	for len(results) < len(reports) {
		results = append(results, coalesce.Result[Outcome]{Err: fmt.Errorf("remediation request of %s: %w", fingerprint[:prefixDigits], err)})
	}
	for i, result := range results {
		reports[i].settled(result.Value, result.Err)
	}
	return results
}

// errAgain says that somebody else was faster: what was read is no longer true.
var errAgain = errors.New("changed meanwhile")

// attempt is a count that was written, when its answer may have been lost.
type attempt struct {
	id       string
	outcomes []Outcome
	doubt    func(error) // told when a write was not answered
}

// made returns the request on which the attempt is found to have been counted, or nil.
func (a attempt) made(requests []v1alpha1.RemediationRequest) *v1alpha1.RemediationRequest {
	for i := range requests {
		if a.id != "" && counted(&requests[i], a.id) {
			return &requests[i]
		}
	}
	return nil
}

// counted reports whether the write with that id is in a request.
func counted(rr *v1alpha1.RemediationRequest, id string) bool {
	return slices.ContainsFunc(deduplication(rr).Writes, func(w v1alpha1.DeduplicationWrite) bool { return w.ID == id })
}

// try looks at what is there and takes one step: all reports are counted, or the
// first opens a request. It returns the outcomes of the reports that are stored. In
// lost it keeps the count that it wrote last.
func (b *Book) try(ctx context.Context, fingerprint string, reports []Report, lost *attempt) ([]Outcome, error) {
	now := b.now()
	if open, found := b.known.Get(fingerprint); found && holds(open, now) {
		outcomes, err := b.count(ctx, open, len(reports), now, lost)
		if !errors.Is(err, errAgain) {
			return outcomes, err
		}
	}
	b.known.Remove(fingerprint)
	requests, err := b.list(ctx, fingerprint)
	if err != nil {
		return nil, err
	}
	if rr := lost.made(requests); rr != nil {
		b.remember(rr)
		return lost.outcomes, nil
	}
	if open := holding(requests, now); open != nil {
		return b.count(ctx, open, len(reports), now, lost)
	}
	highest := highestOrdinal(requests, fingerprint)
	last, err := b.ordinals.last(ctx, fingerprint)
	if err != nil {
		return nil, err
	}
	if last > highest {
		// A request with that number was deleted, or was created since the look.
		if requests, err = b.list(ctx, fingerprint); err != nil {
			return nil, err
		}
		if highestOrdinal(requests, fingerprint) > highest {
			return nil, errAgain
		}
	}
	created, err := b.create(ctx, fingerprint, max(highest, last)+1, reports[0], now, lost.doubt)
	if err != nil {
		return nil, err
	}
	b.remember(created)
	// The request exists, so this is done even if the time of the work is over.
	if err := b.ordinals.keep(context.WithoutCancel(ctx), fingerprint, ordinal(created)); err != nil {
		trace.Log(ctx).Warn("ordinal not kept; the name may be given again once the request is deleted", "remediation_request", created.Name, "error", err)
	}
	outcome := Outcome{
		Created: true, Name: created.Name, Namespace: created.Namespace, Count: 1, First: reports[0].Received, Last: reports[0].Received,
	}
	if len(reports) == 1 {
		b.begin(ctx, created)
	}
	return []Outcome{outcome}, nil
}

// list returns the requests of a fingerprint.
func (b *Book) list(ctx context.Context, fingerprint string) ([]v1alpha1.RemediationRequest, error) {
	list := &v1alpha1.RemediationRequestList{}
	err := b.client.List(ctx, list, client.InNamespace(b.namespace), client.MatchingFields{"spec.signalFingerprint": fingerprint})
	if err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	return list.Items, nil
}

// surely makes a call that changes something. When it is not answered, doubt is told,
// and the very same call is made again until the API server says whether it was done:
// beyond the end of ctx, because somebody will read in the audit trail what became of it.
func (b *Book) surely(ctx context.Context, doubt func(error), call func(context.Context) error) error {
	err := call(ctx)
	if !kube.Doubtful(err) {
		return err
	}
	doubt(err)
	looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.patience)
	defer cancel()
	for {
		again := call(looking)
		if again == nil || errors.Is(again, errAgain) || errors.Is(again, errTaken) || final(again) {
			return again
		}
		if pause(looking) != nil {
			return fmt.Errorf("%w: %w", ErrUnknown, err)
		}
	}
}

// remember keeps what the next count needs of a request; the payload is not kept.
func (b *Book) remember(rr *v1alpha1.RemediationRequest) {
	if rr.DeletionTimestamp != nil {
		return
	}
	known := &v1alpha1.RemediationRequest{
		ObjectMeta: metav1.ObjectMeta{Namespace: rr.Namespace, Name: rr.Name, ResourceVersion: rr.ResourceVersion},
		Spec:       v1alpha1.RemediationRequestSpec{SignalFingerprint: rr.Spec.SignalFingerprint, ReceivedTime: rr.Spec.ReceivedTime},
		Status:     v1alpha1.RemediationRequestStatus{Deduplication: rr.Status.Deduplication, OverallPhase: rr.Status.OverallPhase},
	}
	// Controllers write texts of any length beside what holds asks for.
	if done := rr.Status.CompletionStatus; done != nil {
		known.Status.CompletionStatus = &v1alpha1.CompletionStatus{Outcome: done.Outcome}
	}
	if routing := rr.Status.RoutingStatus; routing != nil {
		known.Status.RoutingStatus = &v1alpha1.RoutingStatus{NextAllowedExecution: routing.NextAllowedExecution}
	}
	b.known.Add(rr.Spec.SignalFingerprint, known)
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
	if len(rr.Spec.SignalFingerprint) < prefixDigits {
		return 0
	}
	digits, found := strings.CutPrefix(rr.Name, Prefix(rr.Spec.SignalFingerprint))
	n, err := strconv.Atoi(digits)
	if !found || err != nil || n < 0 {
		return 0
	}
	return n
}

// highestOrdinal returns the highest number among the names of a fingerprint's requests.
func highestOrdinal(requests []v1alpha1.RemediationRequest, fingerprint string) int {
	highest := 0
	for i := range requests {
		if requests[i].Spec.SignalFingerprint == fingerprint {
			highest = max(highest, ordinal(&requests[i]))
		}
	}
	return highest
}

// errTaken says that another fingerprint with the same first digits has the name.
var errTaken = errors.New("name taken")

// create makes the request of that ordinal, or of the next one whose name is not
// taken by another fingerprint with the same first digits. When the name is taken by
// a request of the same fingerprint, somebody was faster: errAgain.
func (b *Book) create(ctx context.Context, fingerprint string, n int, report Report, now time.Time, doubt func(error)) (*v1alpha1.RemediationRequest, error) {
	id := uuid.NewString()
	for ; ; n++ {
		rr, err := build(report, b.namespace, Prefix(fingerprint)+strconv.Itoa(n), id, now)
		if err != nil {
			return nil, err
		}
		var made *v1alpha1.RemediationRequest
		err = b.surely(ctx, doubt, func(ctx context.Context) error {
			made, err = b.createOnce(ctx, rr, id)
			return err
		})
		switch {
		case errors.Is(err, errTaken):
			continue
		case overQuota(err):
			return nil, fmt.Errorf("create %s: %w: %w", rr.Name, ErrQuota, err)
		case err != nil && b.refuses(ctx, err):
			return nil, &RefusedError{fmt.Errorf("create %s: %w", rr.Name, err)}
		case err != nil:
			return nil, fmt.Errorf("create %s: %w", rr.Name, err)
		}
		return made, nil
	}
}

// createOnce creates a request, or finds the one that it has created before.
func (b *Book) createOnce(ctx context.Context, rr *v1alpha1.RemediationRequest, id string) (*v1alpha1.RemediationRequest, error) {
	created := rr.DeepCopy()
	err := b.client.Create(ctx, created)
	if err == nil {
		return created, nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return nil, err
	}
	present := &v1alpha1.RemediationRequest{}
	err = b.client.Get(ctx, client.ObjectKeyFromObject(rr), present)
	switch {
	case apierrors.IsNotFound(err):
		return nil, errAgain
	case err != nil:
		return nil, fmt.Errorf("get: %w", err)
	case present.Annotations[signalID] == id:
		return present, nil // the first answer was lost
	case present.Spec.SignalFingerprint == rr.Spec.SignalFingerprint:
		return nil, errAgain
	}
	return nil, errTaken
}

// ErrQuota says that there are as many requests as the cluster allows. It takes more once
// others are removed.
var ErrQuota = errors.New("over the quota of remediation requests")

// overQuota reports whether a quota refuses a request, or the quota controller has not
// counted yet what there is. The API server tells them from other refusals by words only
// (k8s.io/apiserver, admission plugin resourcequota).
func overQuota(err error) bool {
	return apierrors.IsForbidden(err) && (strings.Contains(err.Error(), "exceeded quota: ") || strings.Contains(err.Error(), "status unknown for quota: "))
}

// RefusedError says that the cluster does not take this request: an admission policy or a
// webhook forbids it, not a missing permission of the Gateway's.
type RefusedError struct{ err error }

// Error returns the API server's answer.
func (e *RefusedError) Error() string { return "refused by the cluster: " + e.err.Error() }

// Unwrap returns the API server's answer.
func (e *RefusedError) Unwrap() error { return e.err }

// refuses reports whether an error of creating a request is a refusal of this very
// request. A policy answers with the same status as the authorizer, so the authorizer is
// asked.
func (b *Book) refuses(ctx context.Context, err error) bool {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return false
	}
	code := answer.Status().Code
	switch code {
	case http.StatusForbidden:
		review := &authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: b.namespace, Verb: "create", Group: v1alpha1.GroupVersion.Group, Resource: "remediationrequests",
			},
		}}
		return b.client.Create(ctx, review) == nil && review.Status.Allowed
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusRequestEntityTooLarge,
		http.StatusUnprocessableEntity, http.StatusBadRequest, http.StatusTooManyRequests:
		return false // told apart elsewhere
	}
	return code >= http.StatusBadRequest && code < http.StatusInternalServerError
}

// requestLabels are on all that a Book makes.
var requestLabels = map[string]string{
	"app.kubernetes.io/managed-by": "gateway-service",
	"app.kubernetes.io/component":  "remediation",
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
			Namespace:   namespace,
			Name:        name,
			Labels:      maps.Clone(requestLabels),
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

// count adds n reports to a request with one write. A write that is refused because the
// request has changed may be one of this call's own, whose answer was lost: it is kept in
// lost, and errAgain is returned.
func (b *Book) count(ctx context.Context, rr *v1alpha1.RemediationRequest, n int, now time.Time, lost *attempt) ([]Outcome, error) {
	seen := deduplication(rr)
	before := seen.OccurrenceCount
	seen.OccurrenceCount += int64(n)
	if last := metav1.NewTime(now); last.After(seen.LastSeenAt.Time) {
		seen.LastSeenAt = last
	}
	mine := v1alpha1.DeduplicationWrite{Writer: b.writer, ID: uuid.NewString()[:13]}
	others := slices.DeleteFunc(slices.Clone(seen.Writes), func(w v1alpha1.DeduplicationWrite) bool { return w.Writer == b.writer })
	seen.Writes = append([]v1alpha1.DeduplicationWrite{mine}, others[:min(len(others), maxWriters-1)]...)
	outcomes := make([]Outcome, n)
	for i := range outcomes {
		outcomes[i] = Outcome{
			Name: rr.Name, Namespace: rr.Namespace, Count: before + int64(i) + 1,
			First: seen.FirstSeenAt.Time, Last: seen.LastSeenAt.Time,
		}
	}
	lost.id, lost.outcomes = mine.ID, outcomes
	tried := false
	err := b.surely(ctx, lost.doubt, func(ctx context.Context) error {
		err := b.write(ctx, rr, seen)
		if tried && errors.Is(err, errAgain) {
			return b.look(ctx, rr, mine.ID)
		}
		tried = true
		return err
	})
	if err != nil {
		return nil, err
	}
	return outcomes, nil
}

// look returns nil if the write with that id is in the request, and errAgain if not.
func (b *Book) look(ctx context.Context, rr *v1alpha1.RemediationRequest, id string) error {
	present := &v1alpha1.RemediationRequest{}
	err := b.client.Get(ctx, client.ObjectKeyFromObject(rr), present)
	switch {
	case apierrors.IsNotFound(err):
		return errAgain
	case err != nil:
		return fmt.Errorf("get %s: %w", rr.Name, err)
	case counted(present, id):
		b.remember(present)
		return nil
	}
	return errAgain
}

// begin writes the first count of a new request, for those who read it, beyond the end
// of ctx if the API server does not answer: the request is there already. Nothing
// depends on it, so the report is accepted whether it succeeds or not.
func (b *Book) begin(ctx context.Context, rr *v1alpha1.RemediationRequest) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.patience)
	defer cancel()
	for {
		err := b.write(ctx, rr, deduplication(rr))
		if errors.Is(err, errAgain) {
			err = b.client.Get(ctx, client.ObjectKeyFromObject(rr), rr)
			if err == nil && rr.Status.Deduplication == nil {
				continue
			}
		}
		if client.IgnoreNotFound(err) == nil {
			return
		}
		if final(err) || pause(ctx) != nil {
			trace.Log(ctx).Warn("first count not written; its absence reads as 1", "remediation_request", rr.Name, "error", err)
			return
		}
	}
}

// final reports whether the API server has answered, and would not answer otherwise soon.
func final(err error) bool {
	var answer apierrors.APIStatus
	return errors.As(err, &answer) && answer.Status().Code < http.StatusInternalServerError && !apierrors.IsTooManyRequests(err)
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
// merge patch leaves alone what other controllers own.
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
