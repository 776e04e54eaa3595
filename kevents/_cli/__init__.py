"""The command ``kevents``. Begin with ``main.py``, which has all options and help texts."""
