"""Recorders, the broadcaster, and the watchers that consume its events; their asyncio counterparts.

Begin with ``recorder.py``, then ``broadcaster.py`` and ``watcher.py``.
"""
