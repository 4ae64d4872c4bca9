package cluster

import (
	"context"
	"net/http"
	"net/url"

	"k8s.io/client-go/rest"

	"kubernaut.ai/e2e/test/e2e/answer"
)

// PodTransport reaches a port of one pod of the services' namespace through the API server,
// whatever host a request names: for a pod of a spec's own, which no node port leads to.
func (c *Cluster) PodTransport(pod, port string) (http.RoundTripper, error) {
	transport, err := rest.TransportFor(c.config)
	if err != nil {
		return nil, err
	}
	server, err := url.Parse(c.config.Host + "/")
	if err != nil {
		return nil, err
	}
	return podTransport{transport, server.JoinPath("api/v1/namespaces", c.Target.Namespace, "pods", pod+":"+port, "proxy")}, nil
}

// Ask gets a path of one pod's port as PodTransport reaches it.
func (c *Cluster) Ask(ctx context.Context, pod, port, path string) (*answer.Answer, error) {
	transport, err := c.PodTransport(pod, port)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+pod+path, nil)
	if err != nil {
		return nil, err
	}
	return answer.Send(&http.Client{Transport: transport}, request)
}

type podTransport struct {
	to    http.RoundTripper
	proxy *url.URL
}

func (t podTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	at := t.proxy.JoinPath(request.URL.Path)
	at.RawQuery = request.URL.RawQuery
	request.URL, request.Host = at, at.Host
	return t.to.RoundTrip(request)
}
