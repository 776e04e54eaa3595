"""Tests of the package `kevents._delivery`."""
