"""Sinks over the Kubernetes clients, and the connections they use.

Only this package and ``kevents.export`` import a Kubernetes client. Begin with ``sync.py``, the sinks for threads.
``aio.py`` has the sinks for asyncio, ``kopf_login.py`` a sink that uses kopf's credentials.
"""
