package resource

import (
	"os"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		apiVersion, kind string
		want             string // plural; empty: unknown
	}{
		"by kind alone":               {"", "Deployment", "deployments"},
		"with its group":              {"apps/v1", "Deployment", "deployments"},
		"with a version of its group": {"apps/v1beta1", "Deployment", "deployments"},
		"of the core group":           {"v1", "Service", "services"},
		"of another group":            {"serving.knative.dev/v1", "Service", ""},
		"a core kind with a group":    {"apps/v1", "Pod", ""},
		"unknown":                     {"", "Rollout", ""},
		"in the wrong case":           {"v1", "pod", ""},
	} {
		t.Run(name, func(t *testing.T) {
			kind, found := Find(c.apiVersion, c.kind)
			if found != (c.want != "") || kind.Plural != c.want {
				t.Errorf("got %q, %t", kind.Plural, found)
			}
		})
	}
}

func TestRef(t *testing.T) {
	pod, _ := Find("", "Pod")
	node, _ := Find("", "Node")
	if got := pod.Ref("demo", "web-1"); got.String() != "Pod/demo/web-1" || got.APIVersion != "v1" {
		t.Errorf("got %+v", got)
	}
	if got := node.Ref("demo", "worker"); got.String() != "Node/worker" || got.Namespace != "" {
		t.Errorf("got %+v, want no namespace", got)
	}
}

func TestRefOfAnotherAPI(t *testing.T) {
	for name, c := range map[string]struct {
		ref       Ref
		qualified string
		valid     bool
	}{
		"a known kind":                 {Ref{APIVersion: "apps/v1", Kind: "Deployment", Namespace: "demo", Name: "web"}, "Deployment", true},
		"its name in another API":      {Ref{APIVersion: "example.com/v1", Kind: "Deployment", Namespace: "demo", Name: "web"}, "Deployment.example.com", true},
		"another kind of the core API": {Ref{APIVersion: "v1", Kind: "ConfigMap", Namespace: "demo", Name: "web"}, "ConfigMap", true},
		"a kind that is a path":        {Ref{APIVersion: "v1", Kind: "../x", Name: "web"}, "../x", false},
		"an API that is a path":        {Ref{APIVersion: "../v1", Kind: "Thing", Name: "web"}, "Thing...", false},
		"a version that is a path":     {Ref{APIVersion: "x.io/../v1", Kind: "Thing", Name: "web"}, "Thing.x.io", false},
		"a Service with dots":          {Ref{APIVersion: "v1", Kind: "Service", Namespace: "demo", Name: "a.b"}, "Service", false},
		"a pod with dots":              {Ref{APIVersion: "v1", Kind: "Pod", Namespace: "demo", Name: "a.b"}, "Pod", true},
		"a namespace with dots":        {Ref{APIVersion: "v1", Kind: "Pod", Namespace: "a.b", Name: "a"}, "Pod", false},
		"the node of a pod":            {HostOf("demo", "a"), "Node", true},
		"the node of no pod":           {HostOf("demo", "a/b"), "Node", false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.ref.QualifiedKind(); got != c.qualified {
				t.Errorf("got %s, want %s", got, c.qualified)
			}
			if err := c.ref.Validate(); (err == nil) != c.valid {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestMapperKnowsEveryKind(t *testing.T) {
	mapper := Mapper()
	for _, kind := range Kinds() {
		mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if err != nil {
			t.Errorf("%s: %v", kind.Kind, err)
			continue
		}
		if mapping.Resource.Resource != kind.Plural || (mapping.Scope.Name() == "namespace") != kind.Namespaced {
			t.Errorf("%s: got %+v", kind.Kind, mapping)
		}
	}
}

// TestClusterRole holds the manifest to the table: a kind that the Gateway follows
// and may not read answers 503 to everybody.
func TestClusterRole(t *testing.T) {
	file, err := os.Open("../../../manifests/gateway/base/rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var role rbacv1.ClusterRole
	if err := yaml.NewYAMLOrJSONDecoder(file, 4096).Decode(&role); err != nil || role.Kind != "ClusterRole" {
		t.Fatalf("got %s %s, %v", role.Kind, role.Name, err)
	}
	allowed := map[string]bool{}
	for _, rule := range role.Rules {
		for _, group := range rule.APIGroups {
			for _, plural := range rule.Resources {
				for _, verb := range rule.Verbs {
					allowed[group+"/"+plural+"/"+verb] = true
				}
			}
		}
	}
	for _, kind := range Kinds() {
		key := kind.Group + "/" + kind.Plural + "/get"
		if !allowed[key] {
			t.Errorf("%s is not allowed", key)
		}
		delete(allowed, key)
	}
	for _, key := range []string{"/pods/list", "/namespaces/list", "/namespaces/watch"} {
		if !allowed[key] {
			t.Errorf("%s is not allowed", key)
		}
		delete(allowed, key)
	}
	for key := range allowed {
		t.Errorf("%s is allowed and not needed", key)
	}
}
