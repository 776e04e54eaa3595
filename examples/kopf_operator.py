"""An operator that records the results of its backups: `kubectl describe backup` shows the events.

Run it with `kopf run --standalone -A examples/kopf_operator.py`. See examples/kopf/README.md.
"""

import kopf

import kevents.kopf

# Delivers pending events when the operator ends, and replaces kopf's own event posting.
recorder = kevents.kopf.install("backup-operator", silence_kopf=True)


def write(bucket: str) -> None:
    """Simulate the work. Only one bucket exists."""
    if bucket != "main":
        raise ConnectionError(f"the bucket {bucket} is gone")


@kopf.on.create("example.com", "v1", "backups", backoff=1.0)
@kopf.on.update("example.com", "v1", "backups", field="spec", backoff=1.0)
def back_up(body: kopf.Body, spec: kopf.Spec, **_: object) -> None:
    """Retried by kopf every second after a failure. All failures become one event with a growing count."""
    try:
        write(spec["bucket"])
    except ConnectionError as error:
        recorder.exception(body, "BackupFailed", exc=error)  # a Warning: "ConnectionError: the bucket old is gone"
        raise
    recorder.info(body, "BackupDone", "everything is in its bucket")


@kopf.on.update("example.com", "v1", "backups", field="spec.bucket")
async def moved(body: kopf.Body, old: str, new: str, **_: object) -> None:
    """Recording in a coroutine is the same plain call: it never blocks and needs no `await`."""
    recorder.info(body, "BucketChanged", f"from {old} to {new}")
