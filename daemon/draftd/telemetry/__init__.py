"""What happened, in numbers and lines.

Bytes of a worker's output become lines (`lines`), lines become typed records or nothing (`records`); records
and requests become Prometheus series (`metrics`); every line goes to memory and to a rotated file (`logs`).
Nothing here may slow a worker down or stop the serving: a line that cannot be read is a line without a
record, a log that cannot be written is a counter.
"""
