"""Locks and threads that are safe in signal handlers and after a fork, lifecycle hooks, and the log of kevents itself.

It uses only ``kevents._model``. Begin with ``reentrant.py``: it explains why an event can be recorded at any moment.
"""
