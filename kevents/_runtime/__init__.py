"""Threads and locks that are safe in signal handlers and after a fork, exit hooks, and the log of kevents itself.

Begin with ``reentrant.py``, which says why recording is legal anywhere.
"""
