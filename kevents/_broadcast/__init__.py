"""Recorders, broadcasters and watchers, and their asyncio counterparts.

It uses every private package below it. Begin with ``recorder.py``, then ``broadcaster.py`` and ``watcher.py``.
"""
