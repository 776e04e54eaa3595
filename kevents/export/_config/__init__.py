"""Loads the TOML configuration, and reports all its errors at once, with line and fix.

Begin with ``file.py``. ``sinks.py`` has the tables of the sinks, ``table_reader.py`` the checks of single values. The
package uses ``_model``, ``_route``, ``_sinks`` and the options of ``_source``; it connects to nothing.
"""
