"""Routes: which destinations a record goes to. Begin with ``routes.py``; conditions are in ``matchers.py``."""
