"""A controller in asyncio: it watches ConfigMaps labelled `backup`, and says under each what became of it.

Run it wherever kubectl works; `kubectl describe configmap` shows the events. Ctrl-C or SIGTERM ends it.
"""

import asyncio
import signal
from contextlib import AsyncExitStack, suppress

from kubernetes.aio import client, config, watch

import kevents
from kevents import aio


async def back_up(bucket: str) -> None:
    """Pretend to work; there is one bucket."""
    await asyncio.sleep(0)
    if bucket != "main":
        raise ConnectionError(f"the bucket {bucket} is gone")


async def reconcile(plan: client.V1ConfigMap, recorder: kevents.Recorder) -> None:
    """Make the backup; recording is a plain call, which nobody awaits."""
    events = recorder.for_object(plan)
    try:
        await back_up(plan.data["bucket"])
    except ConnectionError as error:
        events.exception("BackupFailed", error)
    else:
        events.normal("BackupDone", "everything is in the bucket")


async def run(recorder: kevents.Recorder, api: client.CoreV1Api) -> None:
    """Reconcile whatever changes; a watch that ends is begun again."""
    while True:
        source = api.list_config_map_for_all_namespaces
        async for change in watch.Watch().stream(source, label_selector="backup", timeout_seconds=60):
            if change["type"] != "DELETED":
                await reconcile(change["object"], recorder)


async def main() -> None:
    """Live until a signal; the ends of the blocks deliver what waits and close what is open."""
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
    await asyncio.sleep(0)  # aiohttp ends its connections in the loop's next turn


if __name__ == "__main__":
    asyncio.run(main())
