"""The commands ``export``, ``check``, ``read`` and ``tail``, and what operates a running export: health, logs, status.

Begin with ``commands.py``; ``build.py`` makes the parts of an export from a configuration.
"""
