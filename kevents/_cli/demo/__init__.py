"""The command ``kevents demo``: an operator records while the API server fails. ``story.py`` has the stages."""
