package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	. "kubernaut.ai/e2e/test/e2e/answer"
	"kubernaut.ai/e2e/test/e2e/signals"
)

// configuration is what of the Gateway's own config file specs depend on.
type configuration struct {
	Server struct {
		MaxConcurrentRequests int `json:"maxConcurrentRequests"`
	} `json:"server"`
	CORS struct {
		AllowedOrigins []string `json:"allowedOrigins"`
	} `json:"cors"`
}

// deployed reads the config file of the deployed Gateway.
func deployed(ctx context.Context) configuration {
	GinkgoHelper()
	var app appsv1.Deployment
	Expect(kube.API.Get(ctx, client.ObjectKey{Namespace: kube.Target.Namespace, Name: gatewayApp.Name}, &app)).To(Succeed())
	var config configuration
	for _, volume := range app.Spec.Template.Spec.Volumes {
		if volume.ConfigMap == nil {
			continue
		}
		var file corev1.ConfigMap
		Expect(kube.API.Get(ctx, client.ObjectKey{Namespace: kube.Target.Namespace, Name: volume.ConfigMap.Name}, &file)).To(Succeed())
		for name, text := range file.Data {
			if strings.HasSuffix(name, ".yaml") {
				Expect(yaml.Unmarshal([]byte(text), &config)).To(Succeed(), name)
			}
		}
	}
	return config
}

// maxConcurrent is how many requests the deployed Gateway serves at once.
func maxConcurrent(ctx context.Context) int {
	GinkgoHelper()
	return max(deployed(ctx).Server.MaxConcurrentRequests, defaultMaxConcurrent)
}

// defaultMaxConcurrent holds where the config file says nothing.
const defaultMaxConcurrent = 100

// held is a request whose body the Gateway is waiting for.
type held struct {
	conn net.Conn
	from *bufio.Reader
	body []byte
}

// hold begins a request and returns when the Gateway has begun to read its body, which
// it says with 100 Continue. The spec finishes it.
func hold(ctx context.Context, body []byte) (*held, error) {
	conn, err := (&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", strings.TrimPrefix(gateway.URL, "https://"))
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	_ = conn.SetDeadline(deadline)
	h := &held{conn: conn, from: bufio.NewReader(conn), body: body}
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n",
		signals.PrometheusPath, gateway.Token, len(body))
	if err != nil {
		return nil, err
	}
	line, err := h.from.ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("waiting for 100 Continue: %w", err)
	}
	if !strings.Contains(line, "100 Continue") {
		return nil, fmt.Errorf("want 100 Continue, got %s", line)
	}
	_, err = h.from.ReadString('\n')
	return h, err
}

// finish sends the body and returns the answer.
func (h *held) finish() (*Answer, error) {
	defer func() { _ = h.conn.Close() }()
	if _, err := h.conn.Write(h.body); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(h.from, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return &Answer{Code: response.StatusCode, Header: response.Header, Body: body}, err
}

// holdAll begins n requests with the same body at once.
func holdAll(ctx context.Context, n int, body []byte) []*held {
	GinkgoHelper()
	all, errs := make([]*held, n), make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { all[i], errs[i] = hold(ctx, body) })
	}
	wg.Wait()
	Expect(errs).To(HaveEach(BeNil()))
	return all
}

// finishAll finishes them at once and counts the answers by their codes.
func finishAll(all []*held) map[int]int {
	GinkgoHelper()
	answers, errs := make([]*Answer, len(all)), make([]error, len(all))
	var wg sync.WaitGroup
	for i, h := range all {
		wg.Go(func() { answers[i], errs[i] = h.finish() })
	}
	wg.Wait()
	Expect(errs).To(HaveEach(BeNil()))
	codes := map[int]int{}
	for _, answer := range answers {
		codes[answer.Code]++
	}
	return codes
}

// beSecured matches an answer that has a request id and keeps browsers from doing
// anything with it.
func beSecured() OmegaMatcher {
	return WithTransform(func(a Answered) http.Header { return a.Got().Header }, And(
		HaveKeyWithValue("X-Request-Id", ConsistOf(MatchRegexp(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`))),
		HaveKeyWithValue("X-Content-Type-Options", []string{"nosniff"}),
		HaveKeyWithValue("X-Frame-Options", []string{"DENY"}),
		HaveKeyWithValue("Content-Security-Policy", []string{"default-src 'none'"}),
		HaveKeyWithValue("Referrer-Policy", []string{"no-referrer"}),
		HaveKeyWithValue("X-Xss-Protection", []string{"1; mode=block"}),
		HaveKey("Strict-Transport-Security"),
	))
}

var _ = Describe("Every answer", func() {
	DescribeTable("carries the security headers when it is", func(ctx SpecContext, status int, ask func(SpecContext) (*signals.Response, error)) {
		response := must(ask(ctx))
		Expect(response).To(HaveStatus(status))
		Expect(response).To(beSecured())
	},
		Entry("201", SpecTimeout(brief), 201, func(ctx SpecContext) (*signals.Response, error) { return gateway.Alerts(ctx, alert(workload(ctx))) }),
		Entry("202", SpecTimeout(brief), 202, func(ctx SpecContext) (*signals.Response, error) {
			ns := workload(ctx)
			created(ctx, alert(ns))
			return gateway.Alerts(ctx, alert(ns))
		}),
		Entry("207", SpecTimeout(brief), 207, func(ctx SpecContext) (*signals.Response, error) {
			return gateway.Alerts(ctx, copies(2, alert(workload(ctx)))...)
		}),
		Entry("200", SpecTimeout(brief), 200, func(ctx SpecContext) (*signals.Response, error) {
			return gateway.Alerts(ctx, alert(workload(ctx)).Resolved())
		}),
		Entry("400", SpecTimeout(brief), 400, func(ctx SpecContext) (*signals.Response, error) {
			return gateway.Post(ctx, signals.PrometheusPath, []byte("{"))
		}),
		Entry("401", SpecTimeout(brief), 401, func(ctx SpecContext) (*signals.Response, error) {
			return gateway.As("").Alerts(ctx, signals.Firing("Down"))
		}),
		Entry("403", SpecTimeout(brief), 403, func(ctx SpecContext) (*signals.Response, error) {
			return gateway.As(must(run.Account(ctx, kube, uniqueName("denied")))).Alerts(ctx, signals.Firing("Down"))
		}),
		Entry("404", SpecTimeout(brief), 404, func(ctx SpecContext) (*signals.Response, error) { return gateway.Post(ctx, "/nothing", nil) }),
		Entry("405", SpecTimeout(brief), 405, func(ctx SpecContext) (*signals.Response, error) {
			return gateway.Do(ctx, http.MethodGet, signals.EventPath, nil)
		}),
		Entry("413", SpecTimeout(brief), 413, func(ctx SpecContext) (*signals.Response, error) {
			return gateway.Post(ctx, signals.PrometheusPath, sized(workload(ctx), limitBytes+1))
		}),
		Entry("415", SpecTimeout(brief), 415, func(ctx SpecContext) (*signals.Response, error) {
			return gateway.Post(ctx, signals.PrometheusPath, []byte("{}"), signals.Header("Content-Type", "text/plain"))
		}),
	)

	It("has a request id of its own, whatever the sender proposes", SpecTimeout(brief), func(ctx SpecContext) {
		seen := map[string]bool{"proposed": true}
		for range 20 {
			response := must(gateway.Post(ctx, signals.PrometheusPath, []byte("{}"), signals.Header("X-Request-ID", "proposed")))
			Expect(seen).NotTo(HaveKey(response.RequestID()))
			seen[response.RequestID()] = true
		}
	})
})

var _ = Describe("A browser", func() {
	// preflight asks whether a page of this origin may send alerts.
	preflight := func(ctx SpecContext, origin string) *signals.Response {
		return must(gateway.As("").Do(ctx, http.MethodOptions, signals.PrometheusPath, nil, signals.Header("Origin", origin),
			signals.Header("Access-Control-Request-Method", http.MethodPost), signals.Header("Access-Control-Request-Headers", "authorization,content-type")))
	}

	It("may send from an origin that is allowed", SpecTimeout(brief), func(ctx SpecContext) {
		origins := deployed(ctx).CORS.AllowedOrigins
		Expect(origins).NotTo(BeEmpty(), "the deployed Gateway allows no origin")
		response := preflight(ctx, origins[0])
		Expect(response.Code).To(BeElementOf(http.StatusOK, http.StatusNoContent))
		Expect(response.Header.Get("Access-Control-Allow-Origin")).To(Equal(origins[0]))
		Expect(response.Header.Get("Access-Control-Allow-Methods")).To(ContainSubstring(http.MethodPost))
	})

	It("may not send from another origin", SpecTimeout(brief), func(ctx SpecContext) {
		Expect(preflight(ctx, "https://evil.example.org").Header).NotTo(HaveKey("Access-Control-Allow-Origin"))
	})

	DescribeTable("finds no permission at all at", func(ctx SpecContext, url func() string) {
		request := must(http.NewRequestWithContext(ctx, http.MethodGet, url(), nil))
		request.Header.Set("Origin", "https://console.example.org")
		answer := must(Send(opsClient, request))
		Expect(answer).To(HaveStatus(http.StatusOK))
		Expect(answer.Header).NotTo(HaveKey("Access-Control-Allow-Origin"))
	},
		Entry("the health port", SpecTimeout(brief), func() string { return "http://" + healthAt + "/healthz" }),
		Entry("the metrics port", SpecTimeout(brief), func() string { return "http://" + metricsAt + "/metrics" }),
	)
})

var _ = Describe("A connection that only begins a request", func() {
	It("is dropped", SpecPriority(first), SpecTimeout(broken), func(ctx SpecContext) {
		conn := must((&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", strings.TrimPrefix(gateway.URL, "https://")))
		DeferCleanup(conn.Close)
		deadline, _ := ctx.Deadline()
		Expect(conn.SetDeadline(deadline)).To(Succeed())
		must(fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: gateway\r\nX-Slow: ", signals.PrometheusPath))
		must(io.ReadAll(conn)) // ends without an error only when the Gateway closes
	})
})

// Last, because Alertmanager tells of the end of its alert when it pleases.
var _ = Describe("More requests than the Gateway serves at once", Serial, SpecPriority(last), func() {
	It("are told to come back while the others are served, and Alertmanager comes", SpecTimeout(broken), func(ctx SpecContext) {
		ns, late, limit := workload(ctx), workload(ctx), maxConcurrent(ctx)
		all := holdAll(ctx, limit, sized(ns, 4<<10))
		response := send(ctx, alert(ns))
		overloaded := notify(ctx, "overloaded", alert(late))
		Expect(response).To(BeProblem(http.StatusServiceUnavailable, "overloaded"), "Alertmanager drops what is answered 429")
		Expect(response.RetryAfter()).To(BeNumerically(">", 0))
		Expect(response).To(beSecured())
		Eventually(overloaded.sent).WithContext(ctx).Should(HaveField("Refused", BeNumerically(">", 0)), "the Gateway has too much to do")
		Expect(finishAll(all)).To(Equal(map[int]int{http.StatusCreated: 1, http.StatusAccepted: limit - 1}))
		Expect(send(ctx, alert(ns))).To(HaveStatus(http.StatusAccepted))
		Eventually(overloaded.sent).WithContext(ctx).Should(HaveField("Delivered()", 1))
		Expect(must(overloaded.sent(ctx)).Failed).To(BeZero())
		Expect(remediations(ctx, identity(late))).To(ConsistOf(HaveField("Status.Deduplication.OccurrenceCount", int64(1))))
	})
})
