"""Decides which write an event deserves: a create, a patch of an event written before, or none.

Pure: time is passed in. Begin with ``correlator.py`` (client-go: ``EventCorrelator``); ``series.py`` is its
counterpart for events.k8s.io/v1.
"""
