"""The embedded API server: HTTP, and the rules of kube-apiserver for the objects that tests need.

Begin with ``server.py``, then ``handler.py``, which answers requests.
"""
