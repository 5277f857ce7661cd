"""Regions, joins, rasters, flows: from raw files to tables."""
