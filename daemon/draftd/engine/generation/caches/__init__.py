"""Caches that can be taken back: what a model has read of a text, and how it forgets the end of it.

Speculative decoding reads tokens that are then refused. What was read of them must leave no trace, or the text
goes wrong without a word, and a text gone wrong even makes drafting look better. mlx_lm's own caches can be taken
back only in part: `trim_prompt_cache` gives up silently, a `RotatingKVCache` overwrites what it would need, and the
state of a recurrent layer has no end that could be cut off. Here is what each kind does instead.

| mlx_lm's kind | here | how it is taken back |
|---|---|---|
| `KVCache`, `QuantizedKVCache` | as it is | the offset moves; later writes go over the rest |
| `RotatingKVCache` | `SlidingKVCache` | rows in the order of the text; those that the mark needs stay |
| `ChunkedKVCache` | `RewindableChunkedKVCache` | the same, by chunks |
| `ArraysCache` (recurrent layers) | `RecordingArraysCache` | the old state is put back, and the layer reads again |
| DeepSeek 4.1's `LayerCache` | as it is | the old state is put back |
| `CacheList` | `CacheList` | each of its parts |

*Putting a state back.* Arrays of keys and values are written in place, but the states of recurrent layers are
replaced. So a reference to a state is a copy of it, and costs nothing but its memory.

*Reading again.* A state that is put back lies before the whole pass. To read the kept tokens through the whole
model costs a second pass for most refusals, and takes away most of what drafting gains. So the modules that are
called with a recurrent cache are observed: it is remembered what they were called with, and they are called again
with the part of it that stays. That reads the weights of their input projections and runs the recurrence; what the
call returns is never computed. It needs no knowledge of their kernels, and is right for any module that reads from
left to right and keeps all that it knows in its cache. `ModelCaches` tries this out on a model when it is loaded.
Where it fails, and for DeepSeek 4.1, whole passes are taken back, and the caller reads the kept tokens again.

*Quantizing.* A plain layer is quantized between two rounds, once the text is long enough. A round that would go
beyond that place is not drafted, so that each token sees what it would see alone.

*Modules*: `sliding`, `chunked` and `recurrent` are kinds of caches, `quantized` puts one in the place of another,
`layers` treats all kinds alike, `sequence` is what the loop and the prompt cache use.
"""
