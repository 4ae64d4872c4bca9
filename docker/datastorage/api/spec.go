// Package api holds the OpenAPI document that the service keeps to. The server's
// interface and the client are generated from it; requests are checked against it.
package api

import _ "embed"

//go:generate go tool -modfile=../../../.tools/go.mod oapi-codegen -config server/config.yaml -o server/server.gen.go openapi.yaml
//go:generate go tool -modfile=../../../.tools/go.mod oapi-codegen -config client/config.yaml -o client/client.gen.go openapi.yaml

// Spec is the OpenAPI document, in YAML.
//
//go:embed openapi.yaml
var Spec []byte
