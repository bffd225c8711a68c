"""Keys and values in fewer bits, once a text has got long: what mlx_lm's flag `--kv-bits` asks for."""

from dataclasses import dataclass

from mlx_lm.models.cache import KVCache

from draftd.engine.generation.caches.layers import Layers


@dataclass(frozen=True, slots=True)
class Quantization:
    """`bits` for each number, a scale for each `group_size` of them; from `start` tokens of a text on.

    Layers of mlx_lm's plain kind are quantized, and no others, as mlx_lm does it.
    """

    bits: int
    group_size: int
    start: int

    def apply(self, layers: Layers) -> None:
        """Put quantized layers in the places of those that have got long enough; outside of a round."""
        for place, layer in enumerate(layers):
            if type(layer) is KVCache and layer.offset >= self.first:
                layers[place] = layer.to_quantized(group_size=self.group_size, bits=self.bits)

    def until(self, position: int) -> int | None:
        """Return how many tokens from `position` on see layers as they are now; None where all that come do."""
        return self.first - position if position < self.first else None

    @property
    def first(self) -> int:
        """How many tokens a text has when its layers are quantized: there must be something to quantize."""
        return max(1, self.start)
