package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TargetType says on what kind of platform the target of a signal runs.
// +kubebuilder:validation:Enum=kubernetes;aws;azure;gcp;datadog
type TargetType string

// TargetKubernetes is the only target type that the Gateway writes.
const TargetKubernetes TargetType = "kubernetes"

// SignalTypeAlert is the signal type that the Gateway writes, for alerts and events alike.
const SignalTypeAlert = "alert"

// Phase is where the work on a RemediationRequest stands.
// +kubebuilder:validation:Enum=Pending;Processing;Analyzing;AwaitingApproval;Executing;Verifying;Blocked;Completed;Failed;TimedOut;Skipped;Cancelled
type Phase string

// The phases, in the order in which a request may pass through them; those from
// PhaseCompleted on are terminal. No phase at all means that nobody has begun.
const (
	PhasePending          Phase = "Pending"
	PhaseProcessing       Phase = "Processing"
	PhaseAnalyzing        Phase = "Analyzing"
	PhaseAwaitingApproval Phase = "AwaitingApproval"
	PhaseExecuting        Phase = "Executing"
	PhaseVerifying        Phase = "Verifying"
	PhaseBlocked          Phase = "Blocked"
	PhaseCompleted        Phase = "Completed"
	PhaseFailed           Phase = "Failed"
	PhaseTimedOut         Phase = "TimedOut"
	PhaseSkipped          Phase = "Skipped"
	PhaseCancelled        Phase = "Cancelled"
)

// Terminal reports whether no more work will be done in this phase. A phase that is
// not known counts as active.
func (p Phase) Terminal() bool {
	switch p {
	case PhaseCompleted, PhaseFailed, PhaseTimedOut, PhaseSkipped, PhaseCancelled:
		return true
	}
	return false
}

// Outcome says how a finished request ended.
// +kubebuilder:validation:Enum=Remediated;NoActionRequired;ManualReviewRequired;VerificationTimedOut;Inconclusive;DryRun
type Outcome string

// The outcomes of a finished request.
const (
	OutcomeRemediated           Outcome = "Remediated"
	OutcomeNoActionRequired     Outcome = "NoActionRequired"
	OutcomeManualReviewRequired Outcome = "ManualReviewRequired"
	OutcomeVerificationTimedOut Outcome = "VerificationTimedOut"
	OutcomeInconclusive         Outcome = "Inconclusive"
	OutcomeDryRun               Outcome = "DryRun"
)

// TargetResource names the object that a signal is about.
type TargetResource struct {
	// Kind of the object, for example Pod.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`

	// Name of the object.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Namespace of the object; empty for a cluster-scoped one.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// APIVersion of the object, for example apps/v1.
	// +optional
	// +kubebuilder:validation:MaxLength=317
	APIVersion string `json:"apiVersion,omitempty"`
}

// RemediationRequestSpec says what was seen. It never changes.
type RemediationRequestSpec struct {
	// SignalFingerprint identifies the problem: lower-case hex SHA-256 over the
	// workload at the top of the target's owners.
	// +kubebuilder:validation:Pattern=`^[a-f0-9]{64}$`
	// +kubebuilder:validation:MaxLength=64
	SignalFingerprint string `json:"signalFingerprint"`

	// SignalName is the alert's name or the event's reason.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SignalName string `json:"signalName"`

	// Severity as the sender wrote it; "unknown" if it wrote none.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=50
	Severity string `json:"severity"`

	// SignalType is the kind of signal. The Gateway writes "alert".
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	SignalType string `json:"signalType"`

	// SignalSource is what sent the signal: "prometheus" or "kubernetes-events".
	// +optional
	// +kubebuilder:validation:MaxLength=63
	SignalSource string `json:"signalSource,omitempty"`

	// TargetType is the platform of the target.
	TargetType TargetType `json:"targetType"`

	// TargetResource is the object that the first signal named.
	TargetResource TargetResource `json:"targetResource"`

	// TargetReason says why this target was chosen: the row of the decision table, a
	// colon, and the reason for a person.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	TargetReason string `json:"targetReason,omitempty"`

	// ClusterID names the cluster of the target; empty means this one.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	ClusterID string `json:"clusterID,omitempty"`

	// FiringTime is when the problem began, by the sender's clock.
	// +optional
	FiringTime *metav1.Time `json:"firingTime,omitempty"`

	// ReceivedTime is when the Gateway took the first signal.
	ReceivedTime metav1.Time `json:"receivedTime"`

	// SignalLabels are the labels of the first signal.
	// +optional
	SignalLabels map[string]string `json:"signalLabels,omitempty"`

	// SignalAnnotations are the annotations of the first signal.
	// +optional
	SignalAnnotations map[string]string `json:"signalAnnotations,omitempty"`

	// ProviderData is a JSON text with what is particular to the target type.
	// +optional
	ProviderData string `json:"providerData,omitempty"`

	// OriginalPayload is the first signal as it was received, as a JSON text.
	// +optional
	OriginalPayload string `json:"originalPayload,omitempty"`
}

// DeduplicationStatus counts the signals about one problem. A request without it
// has been seen once, at its receivedTime: the Gateway may have died between
// creating a request and writing this.
type DeduplicationStatus struct {
	// FirstSeenAt is when the first signal came.
	FirstSeenAt metav1.Time `json:"firstSeenAt"`

	// LastSeenAt is when the latest signal came.
	LastSeenAt metav1.Time `json:"lastSeenAt"`

	// OccurrenceCount is the number of signals so far, the first one included.
	// +kubebuilder:validation:Minimum=1
	OccurrenceCount int64 `json:"occurrenceCount"`

	// Writes names the latest write of each Gateway, newest first. By it a Gateway
	// recognises a write of its own whose answer was lost, and counts nothing twice.
	// +optional
	// +kubebuilder:validation:MaxItems=8
	// +listType=map
	// +listMapKey=writer
	Writes []DeduplicationWrite `json:"writes,omitempty"`
}

// DeduplicationWrite is one write of the count.
type DeduplicationWrite struct {
	// Writer is the process that wrote.
	Writer string `json:"writer"`

	// ID of the write.
	ID string `json:"id"`
}

// RoutingStatus says whether and until when work on the target is held back.
type RoutingStatus struct {
	// NextAllowedExecution is when work on the target may begin again.
	// +optional
	NextAllowedExecution *metav1.Time `json:"nextAllowedExecution,omitempty"`

	// BlockReason says why work is held back.
	// +optional
	BlockReason string `json:"blockReason,omitempty"`
}

// CompletionStatus says how a finished request ended.
type CompletionStatus struct {
	// Outcome of the request.
	// +optional
	Outcome Outcome `json:"outcome,omitempty"`
}

// RemediationRequestStatus says what became of the request.
type RemediationRequestStatus struct {
	// Deduplication counts the signals. Owned by the Gateway, as a whole.
	// +structType=atomic
	// +optional
	Deduplication *DeduplicationStatus `json:"deduplication,omitempty"`

	// OverallPhase is where the work stands.
	// +optional
	OverallPhase Phase `json:"overallPhase,omitempty"`

	// Message says the same for a human reader.
	// +optional
	Message string `json:"message,omitempty"`

	// StartTime is when the work began.
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// CompletedAt is when the work ended.
	// +optional
	CompletedAt *metav1.Time `json:"completedAt,omitempty"`

	// RoutingStatus says whether work is held back.
	// +optional
	RoutingStatus *RoutingStatus `json:"routingStatus,omitempty"`

	// CompletionStatus says how the work ended.
	// +optional
	CompletionStatus *CompletionStatus `json:"completionStatus,omitempty"`

	// Conditions of the request.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// ObservedGeneration is the generation that the status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
}

// RemediationRequest asks for one problem of one workload to be remedied.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=rr
// +kubebuilder:selectablefield:JSONPath=`.spec.signalFingerprint`
// +kubebuilder:selectablefield:JSONPath=`.spec.signalType`
// +kubebuilder:selectablefield:JSONPath=`.spec.severity`
// +kubebuilder:selectablefield:JSONPath=`.spec.clusterID`
// +kubebuilder:printcolumn:name="Signal",type=string,JSONPath=`.spec.signalName`
// +kubebuilder:printcolumn:name="Severity",type=string,JSONPath=`.spec.severity`
// +kubebuilder:printcolumn:name="Kind",type=string,JSONPath=`.spec.targetResource.kind`
// +kubebuilder:printcolumn:name="Target",type=string,JSONPath=`.spec.targetResource.name`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.overallPhase`
// +kubebuilder:printcolumn:name="Count",type=integer,JSONPath=`.status.deduplication.occurrenceCount`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RemediationRequest struct {
	metav1.TypeMeta `json:",inline"`

	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Spec says what was seen. It has one owner as a whole, because nothing of it changes: the
	// API server would look through the owners of each of its fields at every write of the status.
	// +structType=atomic
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="spec is immutable"
	Spec RemediationRequestSpec `json:"spec"`

	// Status says what became of it.
	// +optional
	Status RemediationRequestStatus `json:"status,omitempty"`
}

// RemediationRequestList is a list of RemediationRequests.
//
// +kubebuilder:object:root=true
type RemediationRequestList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RemediationRequest `json:"items"`
}
