"""What breaks between turns ends the requests that it is about, and never the thread that serves all later ones."""

from typing import Any

import pytest
from mlx_lm import server

from draftd.engine import records
from draftd.engine.generation.batch_policy import BatchPolicy
from draftd.engine.generation.caches.ragged import RaggedBatch
from draftd.engine.generation.caches.ragged_layers import RowStore
from draftd.engine.generation.caches.ragged_states import RaggedArraysCache
from draftd.engine.generation.models import LoadedModels
from draftd.engine.generation.reader import Reader
from draftd.engine.prompt_cache import TruePromptCache
from tests.engine.architectures.models import make
from tests.engine.stand_in import Asked, Generator

pytestmark = pytest.mark.fault(212)


class BrokenError(Exception):
    pass


@pytest.fixture(autouse=True)
def _not_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "report_generation", lambda *_: None)


def breaking(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int) -> None:
    """Let the call with this number raise an error, once it was done."""
    inner, calls = getattr(owner, name), [0]

    def call(*args: Any, **kwargs: Any) -> Any:
        result = inner(*args, **kwargs)
        calls[0] += 1
        if calls[0] == at:
            raise BrokenError
        return result

    monkeypatch.setattr(owner, name, call)


def asked() -> list[Asked]:
    return [Asked([4 + number, 9, 5], 30, draft=0, seed=1, temperature=0.8) for number in range(3)]


@pytest.mark.parametrize(
    ("owner", "name", "at", "ended"),
    [
        (RaggedArraysCache, "join", 2, 1),
        (Reader, "leave", 2, 1),
        (TruePromptCache, "trim_to", 2, 1),
        (BatchPolicy, "choose", 5, 3),
        (BatchPolicy, "took", 5, 3),
        (RowStore, "move", 1, 3),
    ],
)
def test_later_requests_get_their_text(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, ended: int
) -> None:
    generator = Generator(make("qwen3_next"), None, ends=False)
    texts = [one.tokens for one in generator.serve(*((0, one) for one in asked()))]
    breaking(monkeypatch, owner, name, at)
    broken = asked()
    broken[0].max_tokens = 9  # so that another one is moved to its place
    generator.serve(*((0, one) for one in broken))
    failed = [one for one in broken if isinstance(one.came[-1], BrokenError)]
    assert 0 < len(failed) <= ended
    for one, text in zip(broken, texts, strict=True):
        assert one.tokens == text[: len(one.tokens)]
        assert one in failed or isinstance(one.came[-2], server.Response)
    serving = generator.serving
    assert (serving._company.size, len(serving._turns), serving._together._batches) == (0, 0, {})
    assert [one.tokens for one in generator.serve(*((0, one) for one in asked()))] == texts


def test_a_row_that_could_not_join_leaves_the_others_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("qwen3_next")
    made = LoadedModels(model, None, lambda _: None).target_caches
    batch = RaggedBatch(model, made.make().layers)
    rows = [batch.join(made.make().layers, 0) for _ in range(2)]
    breaking(monkeypatch, RaggedArraysCache, "join", 1)
    with pytest.raises(BrokenError):
        batch.join(made.make().layers, 0)
    read = batch.read({rows[0]: [5, 6], rows[1]: [7]})
    assert [read[row].count for row in rows] == [2, 1]
    for row in rows:
        batch.leave(row)
    assert batch.is_empty
