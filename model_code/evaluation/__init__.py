"""Splits, metrics, comparisons."""
