"""The Kubernetes event recorder for Python."""

__version__ = "0.1.0.dev0"
