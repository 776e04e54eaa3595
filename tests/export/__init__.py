"""Tests of kevents.export, one module for each room."""
