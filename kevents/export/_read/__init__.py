"""Reads archives of the file and object store sinks: ``reader.py`` the records, ``archive.py`` the segments."""
