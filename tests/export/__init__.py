"""Tests of kevents.export, in the same packages as the code."""
