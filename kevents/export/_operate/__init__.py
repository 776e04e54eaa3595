"""The commands of the export, and the operation of a running one: health, logs, progress.

Begin with ``commands.py``. ``build.py`` makes the parts of an export from its configuration. The package may use every
other package of the export.
"""
