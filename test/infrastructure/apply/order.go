package apply

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// authorityKind stands in order for the Secret that every certificate and the CA
// bundle are made from.
const authorityKind = "Secret (certificate authority)"

// order says what must exist before what. Kinds of one row are applied in parallel, and each
// row is a round of requests that everything after it waits for; kinds that no row names come
// last, because they are custom resources and admission webhooks, which need everything else.
var order = [][]string{
	{"Namespace"},
	{
		"CustomResourceDefinition", "ServiceAccount", "PriorityClass", "RuntimeClass", "StorageClass", "ResourceQuota", "LimitRange",
		"ClusterRole", "Role", authorityKind,
	},
	{
		"ClusterRoleBinding", "RoleBinding", "Secret", "ConfigMap", "PersistentVolume", "PersistentVolumeClaim",
		"Service", "NetworkPolicy", "PodDisruptionBudget",
	},
	{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod", "Job", "CronJob"},
}

// rank is the row of order that an object belongs to.
func rank(obj *unstructured.Unstructured) int {
	kind := obj.GetKind()
	if isAuthority(obj) {
		kind = authorityKind
	}
	for i, kinds := range order {
		if slices.Contains(kinds, kind) {
			return i
		}
	}
	return len(order)
}

// ranks groups objects by rank, lowest first; within a group their order is kept.
func ranks(objs []*unstructured.Unstructured) [][]*unstructured.Unstructured {
	rows := make([][]*unstructured.Unstructured, len(order)+1)
	for _, obj := range objs {
		rows[rank(obj)] = append(rows[rank(obj)], obj)
	}
	return slices.DeleteFunc(rows, func(row []*unstructured.Unstructured) bool { return len(row) == 0 })
}
