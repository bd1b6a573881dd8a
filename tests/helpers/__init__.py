"""Fixtures and helpers for the tests, registered as plugins by the top-level conftest.py."""
