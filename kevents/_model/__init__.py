"""Values and formats: events, object references, names and times of the API, statistics, validation of options.

Pure: no threads, no asyncio, no client, no clock. Begin with ``objects.py`` (``Event`` and ``ObjectReference``), then
read ``reference.py``, which builds a reference from any object.
"""
