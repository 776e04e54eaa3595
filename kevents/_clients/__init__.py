"""Sinks over the Kubernetes clients, and the connections that they use.

The only packages that may import the official client are this one and ``kevents.export``. Begin with ``sink.py``
(threads) or ``aio_sink.py`` (asyncio).
"""
