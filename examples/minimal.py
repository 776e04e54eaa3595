"""The smallest program: one event about one pod.

It runs where kubectl works, or in a pod. `kubectl get events` shows the event. `kubectl describe pod web-0` shows it
too if the manifest has the pod's uid, as a manifest from the API server does.
"""

import sys

import kevents

# The object: a manifest, an object of a Kubernetes client, or a kevents.ObjectReference.
pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "default"}}

with kevents.EventBroadcaster() as broadcaster:
    # Without arguments: the client's default configuration if it is set, else in-cluster, else KUBECONFIG.
    broadcaster.start_recording_to_sink(kevents.CoreV1EventSink())
    recorder = broadcaster.new_recorder("minimal-example")

    # Returns immediately: it never raises and never waits for the API server.
    recorder.event(pod, "Normal", "Greeted", "hello from Python")

# The end of the block delivers pending events, for at most five seconds. Every dropped event is counted:
if dropped := broadcaster.statistics().dropped:
    sys.exit(f"not delivered: {dropped}")
