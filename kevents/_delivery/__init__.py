"""Brings writes to the API server: the dispatcher hands out one attempt at a time to sender threads or tasks.

Begin with ``dispatcher.py``. ``drop_reporter.py`` logs dropped events and calls
``on_drop``.
"""
