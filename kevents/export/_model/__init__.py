"""Values of the export: streams, positions, records, batches, options, statistics.

Begin with ``types.py``.
"""
