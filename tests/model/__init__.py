"""Tests of the package `kevents._model`."""
