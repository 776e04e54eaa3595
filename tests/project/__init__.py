"""Tests of the repository: docs, examples, packaging, public API and structure."""
