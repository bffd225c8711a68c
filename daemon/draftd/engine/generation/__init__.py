"""Generation with a draft model.

`entry` is what mlx_lm calls. It takes a request through `loop`, whose draft length a `policy` decides by
`estimates`, and whose tokens are drawn and kept by the rule in `sampling`; it counts by `acceptance`, and lets
`calibration` measure what the passes cost.
"""
