"""Sinks for the API server, over connections of kevents or over a client that the user gives.

Only this package imports a Kubernetes client. Begin with ``sync.py``, the sinks for threads over connections of
kevents. ``endpoint.py`` finds the server and the credentials. ``aio.py`` is the same for asyncio, over aiohttp.
``client.py`` and ``aio_client.py`` send through clients that the user gives. ``errors.py`` makes errors of answers.
"""
