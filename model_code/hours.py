"""Hours of a day, of which all hourly figures have one each."""

HOURS = 24
