"""Tests of the package `kevents._correlation`."""
