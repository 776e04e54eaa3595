"""The work queue behind a sink: pending writes, retries, and the circuit breaker.

Pure: no threads, no asyncio, no clock, no I/O, no logging; time is passed in. Begin with ``workqueue.py``, then
``outcome.py``, which maps the API server's answer to an outcome.
"""
