"""What an answer must look like: JSON by a schema, or calls of tools that fit theirs.

A request's fields say it (`requested`), a grammar in Lark's form spells it out for the model in use (`lark`, with
the ways in which models write calls in `call_forms`), and llguidance turns that into what may follow at each token
(`compiler`). The generation does the rest: see `generation.drafters.grammar`.
"""
