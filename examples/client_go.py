"""A client-go program ported to Python line by line, with the Go code beside each line.

See the page on migrating from client-go. The events are about the namespace `default`, which every cluster has.
"""

import logging
import sys

from kubernetes import client, config

import kevents


def main() -> int:
    """Check a namespace three times, as a controller does, and record the results."""
    # klog.InitFlags(nil)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")

    # config, err := clientcmd.BuildConfigFromFlags("", kubeconfig); clientset := kubernetes.NewForConfigOrDie(config)
    config.load_kube_config()
    clientset = client.CoreV1Api()

    # broadcaster := record.NewBroadcaster(record.WithCorrelatorOptions(record.CorrelatorOptions{BurstSize: 50}))
    options = kevents.CorrelatorOptions(burst_size=50)
    broadcaster = kevents.EventBroadcaster(correlator_options=options)

    # broadcaster.StartStructuredLogging(0)
    broadcaster.start_structured_logging()

    # broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: clientset.CoreV1().Events("")})
    broadcaster.start_recording_to_sink(kevents.CoreV1EventSink(clientset))

    # recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "checker", Host: hostname})
    recorder = broadcaster.new_recorder(kevents.EventSource("checker", kevents.default_host()))

    # namespace, err := clientset.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
    namespace = clientset.read_namespace("default")

    for percent in (50, 75, 100):
        # recorder.Eventf(namespace, corev1.EventTypeNormal, "Checking", "%d %% of the objects are checked", percent)
        recorder.eventf(namespace, kevents.EVENT_TYPE_NORMAL, "Checking", "%d %% of the objects are checked", percent)

    # recorder.AnnotatedEventf(namespace, map[string]string{"run": "7"}, corev1.EventTypeWarning, "QuotaNear", "9 of 9")
    recorder.annotated_eventf(namespace, {"run": "7"}, kevents.EVENT_TYPE_WARNING, "QuotaNear", "9 of 9")

    # defer broadcaster.Shutdown(), but it delivers pending events, and returns the number of dropped ones
    return 1 if broadcaster.shutdown() else 0


if __name__ == "__main__":
    sys.exit(main())
