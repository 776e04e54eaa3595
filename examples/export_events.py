"""Exports a cluster's events: all events to a folder, and warnings to an object store as well.

    python examples/export_events.py /var/lib/events s3://bucket/events

It runs until Ctrl-C or SIGTERM. The folder and the bucket hold their positions, so that the next run continues there.
`kevents read /var/lib/events` prints the events. The command `kevents export` does the same from a configuration file.
"""

import logging
import os
import signal
import sys

from kubernetes import client, config

from kevents.export import BatchOptions, ClusterEventSource, Enricher, Exporter, FileSink, ObjectStoreSink, Route


def main(folder: str, *url: str) -> int:
    """Export until a signal. The exit status is 1 if records that were read are not written."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    config.load_config()
    api = client.ApiClient()

    sinks = {"folder": FileSink(folder, keep_for=90 * 86400)}
    routes = [Route(to="folder", all=True)]
    if url:
        # Credentials and region come from the environment: AWS_ACCESS_KEY_ID, AWS_REGION. MinIO needs an endpoint.
        endpoint = os.environ.get("S3_ENDPOINT")
        sinks["bucket"] = ObjectStoreSink(*url, options={"endpoint": endpoint} if endpoint else None)
        routes.append(Route(to="bucket", type="Warning"))

    exporter = Exporter(
        ClusterEventSource(api),
        enrich=Enricher(api),  # adds labels, annotations and owners of each event's object
        routes=routes,
        sinks=sinks,
        batch=BatchOptions(max_age=2.0),  # writes a batch two seconds after its first event, or when it is full
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: exporter.stop())

    left = exporter.run()  # retries failures; saves a destination's position after it has stored the data
    return 1 if left else 0


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(f"usage: {sys.argv[0]} FOLDER [s3://BUCKET/PREFIX]")
    sys.exit(main(*sys.argv[1:]))
