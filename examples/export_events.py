"""Keeps a cluster's events: all of them in a folder, and warnings in an object store as well.

    python examples/export_events.py /var/lib/events s3://bucket/events

It goes on until Ctrl-C or SIGTERM, and begins the next time where it left off: the folder and the bucket know what they
hold. `kevents read /var/lib/events` prints it. The command `kevents export` does the same from a configuration.
"""

import logging
import os
import signal
import sys

from kubernetes import client, config

from kevents.export import BatchOptions, ClusterEventSource, Enricher, Exporter, FileSink, ObjectStoreSink, Route


def main(folder: str, *url: str) -> int:
    """Export until a signal; the exit status says whether all that was read is written."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    config.load_config()
    api = client.ApiClient()

    sinks = {"folder": FileSink(folder, keep_for=90 * 86400)}
    routes = [Route(to="folder", all=True)]
    if url:
        # Credentials and region come from the environment: AWS_ACCESS_KEY_ID, AWS_REGION ... MinIO has an endpoint.
        endpoint = os.environ.get("S3_ENDPOINT")
        sinks["bucket"] = ObjectStoreSink(*url, options={"endpoint": endpoint} if endpoint else None)
        routes.append(Route(to="bucket", type="Warning"))

    exporter = Exporter(
        ClusterEventSource(api),
        enrich=Enricher(api),  # labels, annotations and owners of the object that an event is about
        routes=routes,
        sinks=sinks,
        batch=BatchOptions(max_age=2.0),  # a batch is written two seconds after its first event, or when it is full
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: exporter.stop())

    left = exporter.run()  # whatever fails is tried again; the position of a destination moves when it has the bytes
    return 1 if left else 0


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(f"usage: {sys.argv[0]} FOLDER [s3://BUCKET/PREFIX]")
    sys.exit(main(*sys.argv[1:]))
