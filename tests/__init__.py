"""Tests of kevents, one module for each room."""
