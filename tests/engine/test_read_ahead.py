"""A prompt that is read before anybody waits for its answer."""

from __future__ import annotations

import pytest

from draftd.engine import records
from draftd.engine.generation.caches.layers import leaves
from tests.engine.architectures.models import make, noisy
from tests.engine.stand_in import VOCABULARY, Asked, Generator

PROMPT = [(7 * i * i + 3 * i) % (VOCABULARY - 3) + 3 for i in range(300)]


@pytest.mark.parametrize("ahead", [True, False])
def test_both_models_have_read_it_and_nothing_is_counted(
    ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[object] = []
    monkeypatch.setattr(records, "report_generation", lambda *of: counted.append(of))
    generator = Generator(make("llama"), noisy("llama"), ends=False)
    generator.serve((0, Asked(PROMPT, max_tokens=1, ahead=ahead)))
    layers = generator.prompt_cache.layers_of(("model",), PROMPT)
    assert layers is not None
    positions = [leaf.offset for leaf in leaves(layers)]
    assert (min(positions) >= len(PROMPT) - 1, bool(counted)) == (ahead, not ahead)
    then = Asked([*PROMPT, 5, 6], max_tokens=4)
    generator.serve((0, then))
    assert then.context.prompt_cache_count >= len(PROMPT) - 1
