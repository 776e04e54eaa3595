"""Values and formats: events, references to objects, names and times as the API server wants them, statistics.

Pure: no threads, no asyncio, no client, no clock. Begin with ``objects.py`` (``Event`` and ``ObjectReference``), then
``reference.py``, which makes a reference from any object.
"""
