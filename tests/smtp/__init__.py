"""Tests of the wire: commands, sessions, listener and client."""
