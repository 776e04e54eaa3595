"""Tests with real programs of the Kubernetes world."""
