"""One model and what it has read of a text: pieces of a step are quantized as the whole step is."""

from mlx_lm.models.cache import KVCache, QuantizedKVCache

from draftd.engine.generation.caches.quantized import Quantization
from draftd.engine.generation.caches.sequence import ModelCaches
from draftd.engine.generation.reader import Reader
from draftd.engine.generation.turns import FIRST_PIECE, Company, Pace
from tests.engine.architectures.models import make

SIZES = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 1}
STEP = 2 * FIRST_PIECE


def test_a_step_that_is_read_in_pieces_is_quantized_at_its_end_as_if_it_was_read_at_once() -> None:
    model = make("qwen2", **SIZES)
    pace = Pace(Company(2))
    reader = Reader(model, ModelCaches(model).make(), STEP, Quantization(8, 32, FIRST_PIECE // 2), pace)
    kinds = [
        (reader.position, {type(layer) for layer in reader.cache.layers})
        for _ in reader.steps_to(2 * STEP, [3] * (2 * STEP + 1))
    ]
    assert kinds[0] == (FIRST_PIECE, {KVCache}), "it is read in pieces"
    assert {position for position, _ in kinds} >= {STEP, 2 * STEP}
    for position, found in kinds:
        assert found == ({KVCache} if position < STEP else {QuantizedKVCache})
