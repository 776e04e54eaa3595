"""An operator that says what becomes of its backups: `kubectl describe backup` shows it.

Run it with `kopf run --standalone -A examples/kopf_operator.py`; examples/kopf/README.md tells the rest.
"""

import kopf

import kevents.kopf

# Delivers what waits when the operator ends. kopf's own posting of events is not needed beside it.
recorder = kevents.kopf.install("backup-operator", silence_kopf=True)


def write(bucket: str) -> None:
    """Pretend to work; there is one bucket."""
    if bucket != "main":
        raise ConnectionError(f"the bucket {bucket} is gone")


@kopf.on.create("example.com", "v1", "backups", backoff=1.0)
@kopf.on.update("example.com", "v1", "backups", field="spec", backoff=1.0)
def back_up(body: kopf.Body, spec: kopf.Spec, **_: object) -> None:
    """Fail as often as it takes: kopf tries again every second, and it is one event with a growing count."""
    try:
        write(spec["bucket"])
    except ConnectionError as error:
        recorder.exception(body, "BackupFailed", exc=error)  # a Warning: "ConnectionError: the bucket old is gone"
        raise
    recorder.info(body, "BackupDone", "everything is in its bucket")


@kopf.on.update("example.com", "v1", "backups", field="spec.bucket")
async def moved(body: kopf.Body, old: str, new: str, **_: object) -> None:
    """In a coroutine it is the same call: nothing is awaited, and nothing waits."""
    recorder.info(body, "BucketChanged", f"from {old} to {new}")
