"""The Dagster face: definitions, jobs, schedules, sensors, partitions."""
