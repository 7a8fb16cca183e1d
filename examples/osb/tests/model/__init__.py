"""Tests of app/model, in files whose names end in _tests.py."""
