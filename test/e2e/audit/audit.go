// Package audit reads and writes DataStorage's audit events, through the client that is
// generated from its OpenAPI document.
package audit

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"

	"kubernaut.ai/e2e/docker/datastorage/api/client"
	"kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/cluster"
)

// serverName is a name that DataStorage's certificate is for.
const serverName = "data-storage-service"

// pageSize is the most that DataStorage returns at once.
const pageSize = 1000

// Trail is one client of DataStorage. It is safe for concurrent use.
type Trail struct {
	URL    string // https://host:port
	HTTP   *http.Client
	Client *client.ClientWithResponses // sends the token
	token  string
}

// Connect returns a client that trusts the environment's CA and sends the token. Its
// transport passes through wrap.
func Connect(ctx context.Context, c *cluster.Cluster, token string, wrap func(http.RoundTripper) http.RoundTripper) (*Trail, error) {
	config, err := c.TLS(ctx, serverName)
	if err != nil {
		return nil, err
	}
	address, err := c.Target.Address("data-storage-service", "api")
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		TLSClientConfig:     config,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     answer.KeepIdle,
	}
	return New("https://"+address, token, &http.Client{Transport: wrap(transport)})
}

// New returns a client of any DataStorage.
func New(url, token string, doer *http.Client) (*Trail, error) {
	api, err := client.NewClientWithResponses(url, client.WithHTTPClient(doer), client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return &Trail{URL: url, HTTP: doer, Client: api, token: token}, nil
}

// As is the same client with another token; empty sends none.
func (t *Trail) As(token string) (*Trail, error) { return New(t.URL, token, t.HTTP) }

// Of returns all events of a correlation id in the order in which they were chained.
func (t *Trail) Of(ctx context.Context, correlationID string) ([]client.Event, error) {
	var events []client.Event
	params := &client.ListEventsParams{CorrelationID: &correlationID, Limit: new(pageSize)}
	for {
		page, err := t.List(ctx, params)
		if err != nil {
			return nil, err
		}
		events = append(events, page.Data...)
		if params.Cursor = page.Pagination.NextCursor; params.Cursor == nil {
			slices.SortFunc(events, func(a, b client.Event) int { return cmp.Compare(a.ChainPosition, b.ChainPosition) })
			return events, nil
		}
	}
}

// List returns one page of events. An answer other than 200 is an error that holds it.
func (t *Trail) List(ctx context.Context, params *client.ListEventsParams) (*client.EventPage, error) {
	response, err := t.Client.ListEventsWithResponse(ctx, params)
	if err != nil {
		return nil, err
	}
	if response.JSON200 == nil {
		return nil, fmt.Errorf("listing events: %s: %s", response.Status(), response.Body)
	}
	return response.JSON200, nil
}

// Verify asks DataStorage whether the chain of a correlation id is whole, to its end.
func (t *Trail) Verify(ctx context.Context, correlationID string) (*client.ChainReport, error) {
	var resume *string
	for {
		response, err := t.Client.VerifyChainWithResponse(ctx, client.VerifyChainJSONRequestBody{CorrelationID: correlationID, Resume: resume})
		if err != nil {
			return nil, err
		}
		if response.JSON200 == nil {
			return nil, fmt.Errorf("verifying %s: %s: %s", correlationID, response.Status(), response.Body)
		}
		if resume = response.JSON200.Resume; resume == nil {
			return response.JSON200, nil
		}
	}
}

// Data decodes an event's event_data.
func Data(event client.Event) (map[string]any, error) {
	var data map[string]any
	if err := json.Unmarshal(event.EventData, &data); err != nil {
		return nil, fmt.Errorf("event %s: event_data: %w", event.EventID, err)
	}
	return data, nil
}
