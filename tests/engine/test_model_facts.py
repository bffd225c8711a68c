"""What is said of loaded models, on models that are no more than their arguments and caches."""

import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, ChunkedKVCache, KVCache, RotatingKVCache

from draftd.engine.model_facts import context_length, facts, loaded_record, saying
from draftd.protocol import RECORD_PREFIX


def model(*caches: Any, **args: Any) -> Any:
    return SimpleNamespace(make_cache=lambda: list(caches), args=SimpleNamespace(**args))


def rotating(size: int) -> Any:
    return RotatingKVCache(max_size=size)


class NobodyKnowsCache:
    """Of a kind that mlx_lm may have one day."""


@pytest.mark.parametrize(
    ("caches", "kinds", "refused"),
    [
        ([KVCache(), KVCache()], ["KVCache"], False),
        ([rotating(512), KVCache(), rotating(128)], ["RotatingKVCache", "KVCache"], False),
        ([ArraysCache(2), KVCache()], ["ArraysCache", "KVCache"], False),
        ([CacheList(KVCache(), ArraysCache(1)), KVCache()], ["KVCache", "ArraysCache"], False),
        ([KVCache(), NobodyKnowsCache()], ["KVCache", "NobodyKnowsCache"], True),
    ],
)
def test_caches(caches: list[Any], kinds: list[str], refused: bool) -> None:
    said = facts(model(*caches))
    assert said["cache"] == kinds
    assert (said["refusal"] is not None) == refused
    assert refused == ("NobodyKnowsCache" in (said["refusal"] or ""))


def test_it_is_said_whose_layers_cannot_be_read_in_one_pass_with_others() -> None:
    assert facts(model(rotating(512), KVCache(), ArraysCache(2)))["batch"] is None
    said = facts(model(ChunkedKVCache(8), KVCache()))["batch"]
    assert said is not None
    assert "RewindableChunkedKVCache" in said


@dataclass
class Text:
    vocab_size: int = 11
    max_position_embeddings: int = 22


@pytest.mark.parametrize(
    ("args", "vocabulary", "context"),
    [
        ({"vocab_size": 10, "max_position_embeddings": 20}, 10, 20),
        ({"vocab_size": 10, "text_config": {"vocab_size": 11, "max_position_embeddings": 22}}, 10, 22),
        ({"text_config": Text()}, 11, 22),
        ({"vocab_size": "many"}, None, None),
    ],
)
def test_vocabulary_and_context(args: dict[str, Any], vocabulary: int | None, context: int | None) -> None:
    said = facts(model(KVCache(), **args))
    assert (said["vocabulary"], said["context"]) == (vocabulary, context)


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        (None, 100),
        ({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}, 400),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 25}, 100),
        ({"rope_type": "linear", "factor": 2.0}, 200),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 50}, 100),
        ({"type": "default", "mrope_section": [16]}, 100),
        ({"type": "yarn", "factor": None}, 100),
        ("yarn", 100),
    ],
)
def test_a_context_may_be_stretched(scaling: Any, context: int) -> None:
    args = SimpleNamespace(max_position_embeddings=100, rope_scaling=scaling)
    assert context_length(args) == context
    assert context_length(SimpleNamespace(text_config=vars(args))) == context


def test_a_context_has_several_names() -> None:
    assert context_length(SimpleNamespace(n_positions=9)) == 9
    assert context_length(None) is None


def test_a_model_that_says_nothing_of_itself() -> None:
    said = facts(SimpleNamespace(layers=[None, None]))
    assert (said["cache"], said["vocabulary"], said["context"]) == (["KVCache"], None, None)


class Provider:
    """Of mlx_lm's shape."""

    def __init__(self, draft_model: Any, target: Any = None) -> None:
        self.to_load = target or model(KVCache(), vocab_size=10), draft_model

    def _load(self, model_path: str, adapter_path: str | None = None) -> str:
        self.model, self.draft_model = self.to_load
        return model_path


def load(provider: Provider) -> str:
    return str(saying(Provider._load)(provider, "folder", adapter_path=None))


@pytest.mark.parametrize("draft", [None, model(rotating(8), vocab_size=9)])
def test_the_record_comes_after_loading(draft: Any, capfd: pytest.CaptureFixture[str]) -> None:
    provider = Provider(draft)
    assert load(provider) == "folder"
    (line,) = capfd.readouterr().err.splitlines()
    assert line == loaded_record(provider.model, draft)
    said = json.loads(line.removeprefix(RECORD_PREFIX))
    assert said["event"] == "loaded"
    assert said["target"]["vocabulary"] == 10
    assert (said["draft"] or {}).get("cache") == (["RotatingKVCache"] if draft else None)


def test_models_of_which_nothing_can_be_said_are_loaded_all_the_same(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert load(Provider(None, target=SimpleNamespace(layers=None))) == "folder"
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("draftd-engine: what the models are like could not be said: TypeError: ")


def test_a_load_that_fails_fails() -> None:
    def broken(self: Any, model_path: str) -> None:
        raise FileNotFoundError(model_path)

    with pytest.raises(FileNotFoundError, match="folder"):
        saying(broken)(None, "folder")
