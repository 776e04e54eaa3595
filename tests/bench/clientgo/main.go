// Command clientgo measures client-go with the same metrics as tests/bench/ours.py and prints JSON. It reads the
// realistic mix from its standard input, so that both programs use the same one.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

const (
	burst        = 500     // events recorded between two waits, few enough that no queue drops any
	neverSkipped = 1 << 30 // a burst size that no measurement exceeds
	repeats      = 5
	warmUp       = 8
)

var source = corev1.EventSource{Component: "bench", Host: "bench-0"}

type drawn struct {
	Object  int
	Reason  string
	Message string
}

func (d *drawn) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&d.Object, &d.Reason, &d.Message})
}

func main() {
	part := flag.String("part", "record", "what to measure without a server: record or correlate")
	scale := flag.Float64("scale", 1, "of the number of events without a server")
	url := flag.String("url", "", "of the scripted server; without it nothing is delivered")
	ca := flag.String("ca", "", "certificate authority of the server")
	token := flag.String("token", "", "bearer token for the server")
	deliver := flag.String("deliver", "{}", `{"5": 300}: milliseconds, deliveries; {"": 300} on a real server`)
	flag.Parse()
	klog.SetLogger(logr.Discard()) // otherwise each dropped event would be logged

	var found any
	if *url == "" {
		var realistic []drawn
		must(json.NewDecoder(os.Stdin).Decode(&realistic))
		found = map[string]any{*part: thinking(*part, int(20_000**scale), realistic)}
	} else {
		numbers := map[string]int{}
		must(json.Unmarshal([]byte(*deliver), &numbers))
		found = delivering(rest.Config{
			Host: *url, BearerToken: *token, TLSClientConfig: rest.TLSClientConfig{CAFile: *ca}, QPS: -1,
		}, numbers)
	}
	must(json.NewEncoder(os.Stdout).Encode(found))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// thinking runs the measurements of a part that needs no server.
func thinking(part string, number int, realistic []drawn) any {
	about := reference(0)
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name: about.Name, Namespace: about.Namespace, UID: about.UID, ResourceVersion: about.ResourceVersion,
	}}
	number = min(number, len(realistic))
	identical := func(n int) *corev1.Event { return event(n, 0, "BackOff", "back-off restarting") }
	if part == "record" {
		return map[string]any{"reference": emit(about, number), "object": emit(pod, number)}
	}
	return map[string]float64{
		"identical": correlate(neverSkipped, number, identical),
		"skipped":   correlate(25, number, identical),
		"messages": correlate(neverSkipped, number, func(n int) *corev1.Event {
			return event(n, 0, "BackOff", fmt.Sprintf("number %d", n))
		}),
		"objects": correlate(neverSkipped, number, func(n int) *corev1.Event {
			return event(n, n, "BackOff", "back-off restarting")
		}),
		"realistic": correlate(25, number, func(n int) *corev1.Event {
			return event(n, realistic[n].Object, realistic[n].Reason, realistic[n].Message)
		}),
	}
}

// emit measures microseconds per Event() call on an object, in bursts and without pauses, with a consumer running.
func emit(object runtime.Object, number int) map[string]float64 {
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	var received atomic.Int64
	broadcaster.StartEventWatcher(func(*corev1.Event) { received.Add(1) })
	recorder := broadcaster.NewRecorder(scheme.Scheme, source)
	send := func(events int) time.Duration {
		begun := time.Now()
		for range events {
			recorder.Event(object, corev1.EventTypeNormal, "BackOff", "back-off restarting failed container")
		}
		return time.Since(begun)
	}
	bursts := []time.Duration{}
	for sent := range number/burst + 1 {
		took := send(burst)
		if sent > 0 { // the first burst is the warm-up
			bursts = append(bursts, took)
		}
		awaitCount(&received, int64(sent+1)*burst)
	}
	slices.Sort(bursts)
	before := received.Load()
	sustained := send(number)
	time.Sleep(100 * time.Millisecond) // dropped events never arrive
	return map[string]float64{
		"burst_us":       micro(bursts[len(bursts)/2], burst),
		"sustained_us":   micro(sustained, number),
		"sustained_lost": 1 - float64(received.Load()-before)/float64(number),
	}
}

// correlate measures microseconds for each event of a mix, including the patch body, in the quickest of several runs.
func correlate(burstSize, number int, make func(int) *corev1.Event) float64 {
	events := []*corev1.Event{}
	for n := range number {
		events = append(events, make(n))
	}
	found := []float64{}
	for range repeats {
		correlator := record.NewEventCorrelatorWithOptions(record.CorrelatorOptions{BurstSize: burstSize})
		begun := time.Now()
		for _, event := range events {
			_, err := correlator.EventCorrelate(event)
			must(err)
		}
		found = append(found, micro(time.Since(begun), number))
	}
	return slices.Min(found)
}

// delivering measures deliveries by the server's delay in milliseconds.
func delivering(config rest.Config, numbers map[string]int) any {
	found := map[string]any{}
	url := config.Host
	for delay, number := range numbers {
		config.Host = url + "/" + delay
		found[delay] = deliver(&config, number)
	}
	return found
}

// countingSink counts the acknowledged writes, and reports when they reach a goal.
type countingSink struct {
	record.EventSink
	created, goal atomic.Int64
	reached       chan struct{}
}

func (s *countingSink) Create(event *corev1.Event) (*corev1.Event, error) {
	created, err := s.EventSink.Create(event)
	if err == nil && s.created.Add(1) == s.goal.Load() {
		s.reached <- struct{}{}
	}
	return created, err
}

// deliver measures creates a second through client-go's sink, and this process's CPU time for each.
func deliver(config *rest.Config, number int) map[string]float64 {
	client, err := typedcorev1.NewForConfig(config)
	must(err)
	sink := &countingSink{
		EventSink: &typedcorev1.EventSinkImpl{Interface: client.Events("")}, reached: make(chan struct{}),
	}
	broadcaster := record.NewBroadcaster()
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(sink)
	recorder := broadcaster.NewRecorder(scheme.Scheme, source)
	send := func(first, events int) {
		sink.goal.Add(int64(events))
		for n := first; n < first+events; n++ {
			recorder.Event(reference(n), corev1.EventTypeNormal, "Scheduled", "assigned to a node")
		}
		<-sink.reached // not by polling, whose wake-ups would count as processor time of the deliveries
	}
	send(0, warmUp)
	begun, used := time.Now(), processorTime()
	for first := 0; first < number; first += burst {
		send(1000+first, min(burst, number-first))
	}
	seconds, cpu := time.Since(begun).Seconds(), processorTime()-used
	return map[string]float64{
		"per_second": float64(number) / seconds,
		"cpu_us":     micro(cpu, number),
		"delivered":  float64(sink.created.Load() - warmUp),
		"expected":   float64(number),
	}
}

func awaitCount(counter *atomic.Int64, goal int64) {
	for counter.Load() < goal {
		time.Sleep(200 * time.Microsecond)
	}
}

func processorTime() time.Duration {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func micro(took time.Duration, number int) float64 {
	return float64(took.Nanoseconds()) / 1000 / float64(number)
}

func reference(number int) *corev1.ObjectReference {
	return &corev1.ObjectReference{
		Kind:            "Pod",
		APIVersion:      "v1",
		Namespace:       "prod",
		Name:            fmt.Sprintf("web-%d", number),
		UID:             types.UID(fmt.Sprintf("0d3f1c8a-6b0a-4c0e-9d5c-%012d", number)),
		ResourceVersion: fmt.Sprint(1000 + number),
	}
}

// event returns the event with this number about one of the pods, as a recorder creates it.
func event(number, about int, reason, message string) *corev1.Event {
	noon := time.Unix(1_790_000_000, int64(number))
	return &corev1.Event{
		ObjectMeta:          metav1.ObjectMeta{Name: fmt.Sprintf("web-%d.%x", about, noon.UnixNano()), Namespace: "prod"},
		InvolvedObject:      *reference(about),
		Reason:              reason,
		Message:             message,
		Source:              source,
		FirstTimestamp:      metav1.Time{Time: noon},
		LastTimestamp:       metav1.Time{Time: noon},
		Count:               1,
		Type:                corev1.EventTypeNormal,
		ReportingController: source.Component,
		ReportingInstance:   source.Host,
	}
}
