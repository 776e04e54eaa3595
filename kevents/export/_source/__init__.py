"""Reads a cluster's events by list and watch, one stream for each namespace or one for all.

Begin with ``source.py``, then ``stream.py``.
"""
