"""Adds labels, owners, services and addresses of the object to a record.

Begin with ``enricher.py``; it reads only metadata, through ``fetcher.py``.
"""
