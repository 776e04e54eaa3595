"""The command ``kevents``. Begin with ``main.py``; ``arguments.py`` has all options and help texts."""
