// Package apply brings a cluster to the state that a folder of manifests
// describes: it renders the folder with kustomize, applies the objects server-side
// in an order that works, fills in values that must not stand in a file, and
// watches until everything is ready or can no longer become so.
//
// Render, Validate and NodePorts are pure: they read files and talk to no cluster.
// An Applier talks to one cluster and is safe for concurrent use.
package apply
