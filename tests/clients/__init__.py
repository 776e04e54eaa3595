"""Tests of the package `kevents._clients`."""
