"""Generation with drafts: from a draft model, and from a lookup in the text so far and in past answers.

`loop` goes round by round. `drafters` propose, `policy` says which of them and how many tokens, by what
`estimates` have learnt; `reader` is a model with its `caches`, which can be taken back; `sampling` draws tokens
and says which drafts are kept; `acceptance` counts, `calibration` measures what single tokens cost, and `models`
holds what outlives a request.
"""
