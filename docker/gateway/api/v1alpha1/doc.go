// Package v1alpha1 holds the RemediationRequest, the custom resource that the
// Gateway makes of a new problem. It is the part of the Gateway that others import.
//
// The Gateway writes the spec once and owns status.deduplication; everything else in
// the status belongs to the controllers that work on the request.
//
// +kubebuilder:object:generate=true
// +groupName=kubernaut.ai
package v1alpha1

//go:generate go tool -modfile=../../../../.tools/go.mod controller-gen object crd paths=. output:crd:dir=../../../../manifests/crds
