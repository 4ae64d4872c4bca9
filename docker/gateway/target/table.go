package target

import (
	"strings"

	"kubernaut.ai/e2e/docker/gateway/resource"
)

// synonyms are labels that stand in for another where that is absent: names that
// older exporters and scrape configurations write.
var synonyms = []struct{ label, other string }{
	{"namespace", "namespace_name"},
	{"namespace", "kubernetes_namespace"},
	{"pod", "pod_name"},
	{"pod", "kubernetes_pod_name"},
	{"service", "kubernetes_name"},
	{"k8s_namespace_name", "k8s_ns_name"},
}

// openTelemetry names objects by attributes of the resource that was measured. Where
// one is present, plain labels are those of the collector.
var openTelemetry = []object{
	{"k8s_pod_name", "Pod"},
	{"k8s_job_name", "Job"},
	{"k8s_cronjob_name", "CronJob"},
	{"k8s_deployment_name", "Deployment"},
	{"k8s_statefulset_name", "StatefulSet"},
	{"k8s_daemonset_name", "DaemonSet"},
	{"k8s_replicaset_name", "ReplicaSet"},
	{"k8s_replicationcontroller_name", "ReplicationController"},
	{"k8s_hpa_name", "HorizontalPodAutoscaler"},
	{"k8s_persistentvolumeclaim_name", "PersistentVolumeClaim"},
	{"k8s_resourcequota_name", "ResourceQuota"},
	{"k8s_node_name", "Node"},
}

// What an alert was measured from.
const (
	kubelet     = "kubelet"            // the kubelet or cAdvisor: about pods of its node, or the node
	stateMetric = "kube-state-metrics" // about any object of the cluster
	agent       = "agent"              // about the machine that it runs on
	reporter    = "reporter"           // about something else than itself
	application = "application"        // about itself
)

// stateMetrics is in every name that people give to kube-state-metrics.
const stateMetrics = "state-metrics"

// scrapeLabels are where the name of what was scraped may stand.
var scrapeLabels = []string{"job", "service", "container", "app_kubernetes_io_name", "pod"}

// scrapes tells what was scraped: the first that fits. An application is what is left.
var scrapes = []struct {
	name string
	fits func(a *alert) bool
}{
	{kubelet, func(a *alert) bool {
		return a.says([]string{"kubelet", "cadvisor"}, "job", "service") ||
			strings.HasPrefix(a.labels["job"], "kubernetes-nodes") || strings.HasSuffix(a.labels["metrics_path"], "/cadvisor")
	}},
	{stateMetric, func(a *alert) bool { return a.says([]string{stateMetrics}, scrapeLabels...) }},
	{agent, func(a *alert) bool { return a.says(a.rules.Agents, scrapeLabels...) }},
	{reporter, (*alert).exported},
	// Only the pod's name counts: a sidecar's job, service and container say exporter too.
	{reporter, func(a *alert) bool {
		return a.says(a.rules.Reporters, "pod") && a.any("instance", "endpoint", "container")
	}},
	{reporter, func(a *alert) bool { return a.labels["reporter"] == "source" }},              // a mesh's proxy about whom it called
	{reporter, func(a *alert) bool { return strings.Contains(a.labels["instance"], "://") }}, // a probe
	{reporter, func(a *alert) bool {
		return a.any("ingress") && a.any("controller_pod") && a.labels["controller_pod"] == a.labels["pod"]
	}},
}

// own are the labels that belong to what was scraped and not to what the alert is
// about; they are put aside.
var own = []struct {
	scrape, label string
	when          func(a *alert) bool
}{
	{kubelet, "service", always},
	{stateMetric, "service", func(a *alert) bool { return a.says([]string{stateMetrics}, "service") }},
	{stateMetric, "pod", func(a *alert) bool { return a.says([]string{stateMetrics}, "pod") && !a.ownPod() }},
	// The chart prometheus writes the node of the scraped pod on every series there.
	{stateMetric, "node", func(a *alert) bool {
		return strings.HasPrefix(a.labels["job"], "kubernetes-service-endpoints") && !a.any("condition", "key", "resource", "role")
	}},
	{agent, "pod", always},
	{agent, "service", always},
	{agent, "workload", always},
	{reporter, "pod", always},
	{reporter, "service", always},
	{reporter, "workload", always},
	// An exporter that no list knows: the pod is none of the workload's.
	{application, "pod", func(a *alert) bool { return a.any(podOwners...) && !a.podOf(podOwners...) }},
	{application, "service", (*alert).behindExporter},
	{application, "node", (*alert).behindExporter},
}

// podOwners are the labels of what names its pods after itself.
var podOwners = []string{"deployment", "statefulset", "daemonset", "replicaset"}

// references name an object by a pair of labels.
var references = []struct {
	kind, kindLabel string // a kind, or the label that names it
	name, namespace string // labels
	noPod           bool   // only when no pod is left
}{
	{kind: "PersistentVolumeClaim", name: "pvc", namespace: "pvc_namespace"},
	{kindLabel: "resource_kind", name: "resource_name", namespace: "exported_namespace"},
	{kindLabel: "kind", name: "name", namespace: "exported_namespace"},
	{kind: "Service", name: "destination_service_name", namespace: "destination_service_namespace", noPod: true},
}

// object says that a label names an object of a kind.
type object struct{ label, kind string }

// objects are the labels that name what an alert is about, nearest to the fault first.
// A claim stands before the node because volume alerts of the kubelet carry both.
var objects = []object{
	{"pod", "Pod"},
	{"job_name", "Job"},
	{"cronjob", "CronJob"},
	{"deployment", "Deployment"},
	{"statefulset", "StatefulSet"},
	{"daemonset", "DaemonSet"},
	{"replicaset", "ReplicaSet"},
	{"replicationcontroller", "ReplicationController"},
	{"horizontalpodautoscaler", "HorizontalPodAutoscaler"},
	{"poddisruptionbudget", "PodDisruptionBudget"},
	{"ingress", "Ingress"},
	{"persistentvolumeclaim", "PersistentVolumeClaim"},
	{"persistentvolume", "PersistentVolume"},
	{"resourcequota", "ResourceQuota"},
}

// ends are the labels by which kube-state-metrics names objects that are not
// followed: the search ends there, because what is left names something else.
var ends = []object{
	{"limitrange", "LimitRange"},
	{"secret", "Secret"},
	{"configmap", "ConfigMap"},
	{"storageclass", "StorageClass"},
	{"volumeattachment", "VolumeAttachment"},
	{"lease", "Lease"},
	{"certificatesigningrequest", "CertificateSigningRequest"},
	{"networkpolicy", "NetworkPolicy"},
	{"serviceaccount", "ServiceAccount"},
	{"role", "Role"},
	{"rolebinding", "RoleBinding"},
	{"clusterrole", "ClusterRole"},
	{"clusterrolebinding", "ClusterRoleBinding"},
	{"ingressclass", "IngressClass"},
	{"mutatingwebhookconfiguration", "MutatingWebhookConfiguration"},
	{"validatingwebhookconfiguration", "ValidatingWebhookConfiguration"},
	{"verticalpodautoscaler", "VerticalPodAutoscaler"},
	{"customresource_kind", ""}, // the label's value is the kind
}

// typed name a workload by one label and its kind by another.
var typed = []struct{ name, kind string }{
	{"workload", "workload_type"},
	{"top_level_controller_name", "top_level_controller_type"},
	{"owner_name", "owner_kind"},
}

// kindWords are what typed labels call kinds beside their own names.
var kindWords = map[string]string{"barepod": "Pod", "staticpod": "Pod"}

// nodes are the labels that name the machine, by what was scraped. A reporter's node
// is where it runs, and never what it reports on.
var nodes = map[string][]string{
	kubelet:     {"node", "kubernetes_io_hostname", "instance"},
	stateMetric: {"node"},
	agent:       {"node", "nodename", "kubernetes_node", "node_name", "Hostname", "kubernetes_io_hostname", "instance"},
	application: {"node", "node_name"},
}

// kindByName returns the known kind of that name in any case.
func kindByName(name string) (resource.Kind, bool) {
	word := strings.ToLower(name)
	if kind, known := kindWords[word]; known {
		return resource.Find("", kind)
	}
	for _, kind := range resource.Kinds() {
		if strings.ToLower(kind.Kind) == word {
			return kind, true
		}
	}
	return resource.Kind{}, false
}

func always(*alert) bool { return true }
