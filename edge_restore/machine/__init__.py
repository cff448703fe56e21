"""The machine and the process: limits, signals, streams, optional libraries."""
