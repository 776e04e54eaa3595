"""Tests of kevents. Each package has its own folder of tests."""
