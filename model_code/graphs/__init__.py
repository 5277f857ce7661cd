"""Graphs of regions that stay sparse: views of a city, walks on them, and nets that learn from both."""
