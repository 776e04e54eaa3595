"""Tests of kevents.export; the packages are those of the code."""
