"""Carries records from the source to the destinations and saves positions only after data is stored.

Begin with ``exporter.py``; one ``stream_worker.py`` for each stream, one ``destination_worker.py`` for each sink.
"""
