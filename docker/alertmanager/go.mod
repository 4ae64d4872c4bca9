// Alertmanager, built where no registry has its image. The module is built by itself, with the versions of its own go.mod:
// this one only pins it, and what of it is the program. So `go mod tidy` has nothing to say here.
module kubernaut.ai/e2e/docker/alertmanager

go 1.26.0

tool github.com/prometheus/alertmanager/cmd/alertmanager

require github.com/prometheus/alertmanager v0.35.0
