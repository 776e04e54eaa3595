"""Values of the export: streams, positions, records, batches, options, statistics.

It is the export's lowest package. Begin with ``types.py``.
"""
