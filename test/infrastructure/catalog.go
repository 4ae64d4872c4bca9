package infrastructure

import "sigs.k8s.io/kind/pkg/apis/config/defaults"

// Catalog is what there is to build, load, deploy and test, as data. Another
// repository adopts this project with a catalog of its own: no phase knows a name
// that is not in one.
type Catalog struct {
	Namespace  string // where the components run
	Node       string // name of the image that is the cluster's nodes
	Images     []ImageSpec
	Components []Component
	Suites     []Suite
}

// ImageSpec is one image. Its folder is docker/<Name>, its name is what manifests
// call it.
type ImageSpec struct {
	Name string
	// Package is the Go package of a service that is built here, relative to the
	// checkout, e.g. ./docker/gateway. Empty for third-party images.
	Package string
	// Pull is the pinned reference of a third-party image. Where no registry can
	// be reached the image is built from the folder instead.
	Pull string
}

// Component is one thing to deploy: manifests/<Name>/base, and in the coverage
// variant manifests/<Name>/coverage where that exists.
type Component struct {
	Name string
}

// Suite is one Ginkgo suite: test/e2e/<Name>. What it tests is the service of the
// same name, which E2E_COVERAGE_MIN is asked of.
type Suite struct {
	Name string
}

// Kubernaut is this project's own catalog.
func Kubernaut() Catalog {
	return Catalog{
		Namespace: "kubernaut-system",
		Node:      "kind-node",
		Images: []ImageSpec{
			{Name: "gateway", Package: "./docker/gateway"},
			{Name: "datastorage", Package: "./docker/datastorage"},
			{Name: "kind-node", Pull: "docker.io/" + defaults.Image},
			{Name: "postgres", Pull: "docker.io/library/postgres:17.6"},
			{Name: "redis", Pull: "docker.io/library/redis:8.2"},
			{Name: "alertmanager", Pull: "quay.io/prometheus/alertmanager:v0.35.0"},
		},
		Components: []Component{
			{Name: "cluster"}, {Name: "postgres"}, {Name: "redis"},
			{Name: "migrations"}, {Name: "datastorage"}, {Name: "gateway"}, {Name: "alertmanager"},
		},
		Suites: []Suite{{Name: "gateway"}, {Name: "datastorage"}},
	}
}
