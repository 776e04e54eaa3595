"""Sinks for the API server, over connections of kevents or over a client that the user gives.

Only this package and the command ``kevents record`` import a Kubernetes client. Begin with ``sync.py``, the sinks for
threads: they send over their own connections (``direct.py``, ``endpoint.py``), or through the official client
(``client.py``). ``aio.py`` has the sinks for asyncio, over aiohttp or through a given client (``aio_client.py``).
``transport.py`` has the parts of HTTP that all of them share.
"""
