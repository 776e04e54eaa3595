"""Tests of the package `kevents._queue`."""
