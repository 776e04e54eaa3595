"""The command ``kevents demo``: an operator records while the API server fails. Begin with ``story.py``."""
