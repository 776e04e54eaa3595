"""Reads exported records back. Begin with ``reader.py``; ``archive.py`` finds the segments."""
