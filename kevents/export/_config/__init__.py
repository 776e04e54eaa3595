"""Loads the TOML configuration, and reports all its errors at once, with line and fix.

Begin with ``file.py``. ``schema.py`` has the tables, ``sinks.py`` those of the sinks, ``table_reader.py`` the checks of
single values. The package uses ``_model``, ``_route``, and the options of ``_source`` and ``_sinks``; it connects to
nothing.
"""
