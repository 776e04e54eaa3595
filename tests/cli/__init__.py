"""Tests of the package `kevents._cli`."""
