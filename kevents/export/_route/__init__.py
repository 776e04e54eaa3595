"""Routes: which destinations a record goes to.

It uses only the model. Begin with ``Route`` in ``routes.py``.
"""
