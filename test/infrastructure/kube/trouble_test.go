package kube

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestEventTime(t *testing.T) {
	at := func(seconds int64) metav1.Time { return metav1.Unix(seconds, 0) }
	tests := []struct {
		name  string
		event corev1.Event
		want  int64
	}{
		{"counted event", corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(1)}, LastTimestamp: at(5)}, 5},
		{"single event", corev1.Event{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: at(1)}, EventTime: metav1.NewMicroTime(time.Unix(2, 0))}, 2},
		{"series", corev1.Event{EventTime: metav1.NewMicroTime(time.Unix(2, 0)), Series: &corev1.EventSeries{LastObservedTime: metav1.NewMicroTime(time.Unix(9, 0))}}, 9},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := EventTime(test.event).Unix(); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}
