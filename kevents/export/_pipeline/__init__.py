"""Carries records from the source to the destinations; saves a position only after the data is stored.

It uses the source, enricher and routes through protocols. Begin with ``exporter.py``, which starts one stream worker
for each stream and one destination worker for each sink.
"""
