"""The science: no Dagster import, no global state; useful in a notebook by itself."""
