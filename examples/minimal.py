"""The smallest program there is: one event about one pod.

It runs wherever kubectl works (or in a pod), and `kubectl get events` shows the event. `kubectl describe pod web-0`
does so too if the manifest has the pod's uid, as one that was read from the API server has.
"""

import sys

import kevents

# What it is about: a manifest, an object of a Kubernetes client, or a kevents.ObjectReference.
pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "default"}}

with kevents.EventBroadcaster() as broadcaster:
    # Without arguments: the process's configuration of the client, else in-cluster, else KUBECONFIG.
    broadcaster.start_recording_to_sink(kevents.CoreV1EventSink())
    recorder = broadcaster.new_recorder("minimal-example")

    # Returns at once; it never raises and never waits for the API server.
    recorder.event(pod, "Normal", "Greeted", "hello from Python")

# The end of the block has delivered what there was, or given it up after five seconds. Nothing is lost in silence:
if dropped := broadcaster.statistics().dropped:
    sys.exit(f"not delivered: {dropped}")
