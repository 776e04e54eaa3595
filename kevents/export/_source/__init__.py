"""Reads a cluster's events by list and watch, one stream for each namespace, or one for all.

It uses only the model. Begin with ``source.py``.
"""
