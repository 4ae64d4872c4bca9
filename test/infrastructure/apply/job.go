package apply

import (
	"context"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func isJob(obj *unstructured.Unstructured) bool {
	return obj.GroupVersionKind().GroupKind() == schema.GroupKind{Group: batchv1.GroupName, Kind: "Job"}
}

// jobEnd is how a Job ended, JobComplete or JobFailed; empty if it has not.
func jobEnd(obj *unstructured.Unstructured) batchv1.JobConditionType {
	var job batchv1.Job
	if runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &job) != nil {
		return ""
	}
	for _, condition := range job.Status.Conditions {
		if condition.Status == corev1.ConditionTrue && (condition.Type == batchv1.JobComplete || condition.Type == batchv1.JobFailed) {
			return condition.Type
		}
	}
	return ""
}

// useless reports whether Wait would take a Job for failed: it has, or its pods
// have, or are held back.
func (a *Applier) useless(ctx context.Context, obj *unstructured.Unstructured) (bool, error) {
	var job batchv1.Job
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &job); err != nil {
		return false, err
	}
	if end := jobEnd(obj); end != "" {
		return end == batchv1.JobFailed, nil
	}
	if job.Status.Failed >= finalJobFailures {
		return true, nil
	}
	held, err := a.heldBack(ctx, obj)
	return len(held) > 0, err
}
