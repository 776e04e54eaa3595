"""Destinations: files, object stores, HTTP servers, OTLP, standard output; checkpoints and dead letters.

Each sink is in the module of its name; ``segments.py`` is the format of files and objects.
"""
