"""Routes: which destinations a record goes to.

It uses only the model. Begin with ``routes.py``; the conditions are in ``matchers.py``.
"""
