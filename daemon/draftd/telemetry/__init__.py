"""What happened, in numbers and lines.

Bytes of a worker's output become lines (`lines`), and lines become typed records or nothing (`records`). Records
and requests become Prometheus series (`metrics`); every line goes to memory and to a rotated file (`worker_log`).
`output` joins these. Nothing here may slow a worker down or keep draftd from serving: a line that cannot be read
makes no record, and a log that cannot be written is counted.
"""
