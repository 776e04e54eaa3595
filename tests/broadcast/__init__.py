"""Tests of the package `kevents._broadcast`."""
