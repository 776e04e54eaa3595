"""Adds labels, owners, services and addresses of the object to a record.

It uses the model and the source's requests. Begin with ``enricher.py``; it reads only metadata, through ``fetcher.py``.
"""
