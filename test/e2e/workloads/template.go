package workloads

import (
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// LabelApp is what a Service and a controller select their pods by: the app's name.
const LabelApp = "app.kubernetes.io/name"

const finalizer = "e2e.kubernaut.ai/keep"

// smallest is the least storage that can be asked for.
func smallest() corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Mi")}
}

// template is a pod that no node takes: its node selector matches none, so that it stays
// Pending and its image, which does not exist, is never pulled.
func template(app string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{LabelApp: label(app)}},
		Spec: corev1.PodSpec{
			NodeSelector:                 map[string]string{"e2e.kubernaut.ai/node": "none"},
			AutomountServiceAccountToken: new(false),
			Containers:                   []corev1.Container{{Name: "app", Image: "nothing.invalid/app"}},
			RestartPolicy:                corev1.RestartPolicyAlways,
		},
	}
}

func jobSpec(name string) batchv1.JobSpec {
	pod := template(name)
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	return batchv1.JobSpec{Template: pod}
}

func selector(app string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{LabelApp: label(app)}}
}

func (n *Namespace) meta(name string, labels []string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: n.Name, Name: name, Labels: pairs(labels)}
}

func pairs(labels []string) map[string]string {
	all := map[string]string{}
	for i := 0; i+1 < len(labels); i += 2 {
		all[labels[i]] = labels[i+1]
	}
	return all
}

// label is as much of a name as a label's value can hold.
func label(name string) string { return name[:min(len(name), 63)] }
