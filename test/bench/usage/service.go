package usage

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"time"

	"kubernaut.ai/e2e/test/e2e/metrics"
)

// Service is what a service's process says of itself at one moment.
type Service struct {
	At            time.Time
	CPU           time.Duration // used since it was started
	ResidentBytes float64
	Start         float64 // Unix seconds: another value is another process
}

// ReadService reads the metrics at host:port.
func ReadService(ctx context.Context, client *http.Client, address string) (Service, error) {
	families, err := metrics.Scrape(ctx, client, address)
	if err != nil {
		return Service{}, err
	}
	for _, name := range []string{"process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"} {
		if !families.Has(name) {
			return Service{}, fmt.Errorf("http://%s/metrics: has no %s", address, name)
		}
	}
	return Service{
		At:            time.Now(),
		CPU:           time.Duration(families.Value("process_cpu_seconds_total") * float64(time.Second)),
		ResidentBytes: families.Value("process_resident_memory_bytes"),
		Start:         families.Value("process_start_time_seconds"),
	}, nil
}

// Since returns how many cores the process has used since an earlier moment. It is an
// error when that was another process: the service was restarted, or has replicas.
func (s Service) Since(before Service) (cores float64, err error) {
	if s.Start != before.Start {
		return 0, fmt.Errorf("was started %s ago, which is another process than before", time.Since(time.Unix(int64(s.Start), 0)).Round(time.Second))
	}
	return float64(s.CPU-before.CPU) / float64(s.At.Sub(before.At)), nil
}

// Self returns the CPU time of this process: the load generator's.
func Self() (time.Duration, error) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// interval is how often a Watch looks. A scrape costs a service a millisecond.
const interval = 500 * time.Millisecond

// Watch follows a service's memory until it is stopped.
type Watch struct {
	stop context.CancelFunc
	done sync.WaitGroup

	peak float64 // written by the watcher until done
	err  error
}

// Follow begins to watch the service at host:port.
func Follow(ctx context.Context, client *http.Client, address string) *Watch {
	ctx, cancel := context.WithCancel(ctx)
	w := &Watch{stop: cancel}
	w.done.Go(func() { w.follow(ctx, client, address) })
	return w
}

func (w *Watch) follow(ctx context.Context, client *http.Client, address string) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		service, err := ReadService(ctx, client, address)
		if err != nil && ctx.Err() == nil {
			w.err = err
		}
		w.peak = max(w.peak, service.ResidentBytes)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Stop ends the watch and returns the most resident memory that was seen, in bytes,
// and the last error of looking, if there was one.
func (w *Watch) Stop() (peakBytes float64, err error) {
	w.stop()
	w.done.Wait()
	return w.peak, w.err
}
