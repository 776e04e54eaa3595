"""The command ``kevents``. Begin with ``main.py``; ``export.py`` has the arguments of the export's commands."""
