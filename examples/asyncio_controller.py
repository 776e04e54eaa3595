"""An asyncio controller that watches ConfigMaps with the label `backup` and records the result of each backup.

Run it where kubectl works. `kubectl describe configmap` shows the events. Ctrl-C or SIGTERM ends it.
"""

import asyncio
import signal
from contextlib import AsyncExitStack, suppress

from kubernetes.aio import client, config, watch

import kevents
from kevents import aio


async def back_up(bucket: str) -> None:
    """Simulate the work. Only one bucket exists."""
    await asyncio.sleep(0)
    if bucket != "main":
        raise ConnectionError(f"the bucket {bucket} is gone")


async def reconcile(plan: client.V1ConfigMap, recorder: kevents.Recorder) -> None:
    """Make the backup and record its result. Recording is a plain call without `await`."""
    events = recorder.for_object(plan)
    try:
        await back_up(plan.data["bucket"])
    except ConnectionError as error:
        events.exception("BackupFailed", error)
    else:
        events.normal("BackupDone", "everything is in the bucket")


async def run(recorder: kevents.Recorder, api: client.CoreV1Api) -> None:
    """Reconcile every change. A watch that ends is restarted."""
    while True:
        source = api.list_config_map_for_all_namespaces
        async for change in watch.Watch().stream(source, label_selector="backup", timeout_seconds=60):
            if change["type"] != "DELETED":
                await reconcile(change["object"], recorder)


async def main() -> None:
    """Run until a signal. The ends of the blocks deliver pending events and close all connections."""
    await config.load_config()
    async with AsyncExitStack() as ends:
        api = client.CoreV1Api(await ends.enter_async_context(client.ApiClient()))
        broadcaster = await ends.enter_async_context(aio.EventBroadcaster())
        broadcaster.start_recording_to_sink(aio.CoreV1EventSink(api))
        work = asyncio.create_task(run(broadcaster.new_recorder("backup-controller"), api))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        with suppress(asyncio.CancelledError):
            await work
    await asyncio.sleep(0)  # aiohttp closes its connections in the next turn of the loop


if __name__ == "__main__":
    asyncio.run(main())
