"""The work queue behind a sink: pending writes, merging, retry times, and the circuit breaker of an outage.

Pure: no threads, no clock, no I/O; time is passed in. Begin with ``workqueue.py``, then ``outcome.py``, which turns an
API server's answer into what happens to a write.
"""
