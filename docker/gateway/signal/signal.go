// Package signal holds what the Gateway understands of an alert or event, whoever
// sent it. It knows neither HTTP nor Kubernetes' API.
package signal

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"kubernaut.ai/e2e/docker/gateway/resource"
)

// Source is what sent a signal.
type Source string

// The sources that the Gateway has a route for.
const (
	Prometheus       Source = "prometheus"
	KubernetesEvents Source = "kubernetes-events"
)

// Sources returns every source.
func Sources() []Source { return []Source{Prometheus, KubernetesEvents} }

// Signal is one report about one object.
type Signal struct {
	Source    Source
	Name      string // alert name or event reason
	Severity  string // as the sender wrote it; "unknown" if it wrote none
	Cluster   string // empty for the cluster that the Gateway runs in
	Namespace string // of the signal; empty if it names none, and then its target has none
	Target    resource.Ref
	// TargetReason says by which row of the decision table the target was chosen, and why.
	TargetReason string
	Resolved     bool      // the problem is over
	Firing       time.Time // when it began by the sender's clock; zero if it did not say
	Received     time.Time
	Labels       map[string]string
	Annotations  map[string]string
	Payload      string // as received, JSON
	Group        string // the sender's key of the notification, by which it is recognised when it comes again; empty if it gave none
}

// The limits of the custom resource that a signal becomes, in characters.
const (
	maxName     = 253
	maxSeverity = 50
	maxCluster  = 253
)

// Validate returns an *Invalid that names the first field that no custom resource
// could be made of, or nil. A signal may have no target yet.
func (s Signal) Validate() error {
	switch {
	case s.Name == "" || utf8.RuneCountInString(s.Name) > maxName:
		return &Invalid{"signal name", fmt.Sprintf("must have 1 to %d characters", maxName)}
	case s.Severity == "" || utf8.RuneCountInString(s.Severity) > maxSeverity:
		return &Invalid{"severity", fmt.Sprintf("must have 1 to %d characters", maxSeverity)}
	case utf8.RuneCountInString(s.Cluster) > maxCluster:
		return &Invalid{"cluster", fmt.Sprintf("must have at most %d characters", maxCluster)}
	}
	if s.Namespace != "" && !resource.ValidName("Namespace", s.Namespace) {
		return &Invalid{"namespace", fmt.Sprintf("%.80q is not a namespace's name", s.Namespace)}
	}
	if err := s.Target.Validate(); err != nil && s.Target != (resource.Ref{}) {
		return &Invalid{"target", err.Error()}
	}
	// PostgreSQL stores no NUL, so the audit event could never be accepted.
	for where, texts := range map[string]map[string]string{"labels": s.Labels, "annotations": s.Annotations} {
		for key, text := range texts {
			if strings.ContainsRune(key, 0) || strings.ContainsRune(text, 0) {
				return &Invalid{where, fmt.Sprintf("%.80q holds a NUL character", key)}
			}
		}
	}
	for where, text := range map[string]string{"signal name": s.Name, "severity": s.Severity, "cluster": s.Cluster} {
		if strings.ContainsRune(text, 0) {
			return &Invalid{where, "holds a NUL character"}
		}
	}
	return nil
}

// Fingerprint identifies the problem that a workload has: lower-case hex SHA-256 of
// namespace:kind:name, with cluster: before it when a cluster is given. A kind that is
// not one of resource.Kinds has its API group behind it (Kind.group). What is wrong is
// not part of it, so that many alerts about one workload are one problem.
func Fingerprint(cluster string, workload resource.Ref) string {
	text := workload.Namespace + ":" + workload.QualifiedKind() + ":" + workload.Name
	if cluster != "" {
		text = cluster + ":" + text
	}
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// Invalid is a fault of the sender: the same body will never be accepted.
type Invalid struct {
	Field  string // path of the field in the body; empty when the whole body is at fault
	Reason string // for the sender
}

// Error returns the field and the reason.
func (e *Invalid) Error() string {
	if e.Field == "" {
		return e.Reason
	}
	return e.Field + ": " + e.Reason
}

// Rejection is why nothing is made of a signal that was understood.
type Rejection string

// The reasons that a signal itself gives.
const (
	NoObject       Rejection = "no_kubernetes_object" // it is about no object that is followed
	ForeignCluster Rejection = "foreign_cluster"      // it is about a cluster that is not taken
)

// Rejected is a signal that is no fault of the sender's, and that nothing is made of.
type Rejected struct {
	Reason  Rejection
	Message string // for the sender
}

// Error returns the message.
func (e *Rejected) Error() string { return e.Message }

// Stale is a signal that lies outside the window in which it is believed to be no replay.
type Stale struct {
	Field  string // what told the time
	Reason string
}

// Error returns the field and the reason.
func (e *Stale) Error() string { return e.Field + ": " + e.Reason }

// The window in which a signal's time must lie, seen from the Gateway's clock: wide
// enough for a sender's queue and for clocks that differ, no wider.
const (
	MaxAge   = 5 * time.Minute
	MaxAhead = 2 * time.Minute
)

// CheckWindow returns a *Stale unless t lies between MaxAge before and MaxAhead after now.
func CheckWindow(field string, t, now time.Time) error {
	if now.Sub(t) > MaxAge {
		return &Stale{field, fmt.Sprintf("older than %s", MaxAge)}
	}
	return CheckAhead(field, t, now)
}

// CheckAhead returns a *Stale if t lies more than MaxAhead after now.
func CheckAhead(field string, t, now time.Time) error {
	if t.Sub(now) > MaxAhead {
		return &Stale{field, fmt.Sprintf("more than %s in the future", MaxAhead)}
	}
	return nil
}
