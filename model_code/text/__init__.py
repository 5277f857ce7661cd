"""Captions: writing them, and reading what they say."""
