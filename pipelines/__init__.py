"""The Dagster face: definitions, jobs, schedules, sensors, partitions.

However a run is started, this package is imported before any library that computes or downloads: what
those read from the environment when they are imported is set here, unless it is set already.
"""

import os

# One thread a process: another number gives other last digits, and long stages use processes instead.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve a busy machine
os.environ.setdefault("DO_NOT_TRACK", "1")  # vLLM, and the hub of models with all that uses it
