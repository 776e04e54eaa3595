"""Tests of the package `kevents._runtime`."""
