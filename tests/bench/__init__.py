"""Benchmarks of kevents and client-go. The plain test command runs none of them."""
