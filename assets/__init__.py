"""One module a stage, in the order that data flows."""
