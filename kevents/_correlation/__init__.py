"""Correlators: they decide which write an event deserves: a create, a patch of an earlier event, or none.

Pure: time is passed in. It uses only ``kevents._model``. Begin with ``correlator.py`` (client-go: ``EventCorrelator``);
``series.py`` is its counterpart for events.k8s.io/v1.
"""
