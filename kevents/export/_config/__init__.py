"""Reads the TOML configuration; reports all errors at once, with line and fix. Begin with ``file.py``."""
