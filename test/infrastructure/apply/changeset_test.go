package apply_test

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"kubernaut.ai/e2e/test/infrastructure/apply"
)

func ExampleChangeSet() {
	changes := apply.ChangeSet{
		{Object: apply.Ref{GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Namespace"), Name: "apps"}, Action: apply.Unchanged},
		{Object: apply.Ref{GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"), Namespace: "apps", Name: "web"}, Action: apply.Configured},
	}
	fmt.Println(changes)
	fmt.Println(changes.Summary())
	// Output:
	// Namespace/apps unchanged
	// Deployment/apps/web configured
	// 1 configured, 1 unchanged
}
