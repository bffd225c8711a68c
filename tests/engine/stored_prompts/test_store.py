"""Stored prompts with tiny models: the next engine takes them up, and its text is what it would have been."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.cache import ArraysCache, CacheList, ChunkedKVCache, KVCache, RotatingKVCache

from draftd.engine.prompt_cache import TruePromptCache
from draftd.engine.stored_prompts import store as module
from draftd.engine.stored_prompts.files import NewFile, StoredFiles
from draftd.engine.stored_prompts.layers import (
    UnstorableError,
    arrays_in,
    bytes_of,
    put_together,
    shape_of,
    taken_apart,
)
from draftd.engine.stored_prompts.store import Store
from draftd.protocol import PROMPT_CACHE_SUFFIX, PromptStore
from tests.engine.architectures.models import make, noisy
from tests.engine.stand_in import VOCABULARY, Asked, Generator

GB = 10**9
MODEL = ("model",)
LENGTH = 400
PROMPT = [(7 * i * i + 3 * i) % (VOCABULARY - 3) + 3 for i in range(LENGTH)]


class Engine:
    """An engine's prompt cache with a store, and its models if there are any."""

    def __init__(
        self,
        folder: Path,
        models: tuple[Any, Any] = (None, None),
        *,
        identity: str = "a" * 64,
        bound: int = GB,
    ) -> None:
        self.said: list[str] = []
        self.generator = Generator(*models, ends=False)
        self.cache: TruePromptCache = self.generator.prompt_cache
        self.outcomes: list[str] = []
        place = PromptStore(str(folder), bound, 10.0)
        self.store = Store(place, identity, MODEL, self.said.append, self.outcomes.append)
        self.cache.store = self.store

    def ask(self, prompt: list[int], **how: Any) -> tuple[list[int], int]:
        """The tokens of the answer, and how many of the prompt had not to be read."""
        asked = Asked(prompt, max_tokens=24, **how)
        self.generator.serve((0, asked))
        return asked.tokens, asked.context.prompt_cache_count

    def put(self, tokens: list[int]) -> None:
        """Store what a model of one layer has read."""
        rows = mx.arange(len(tokens) * 64, dtype=mx.float32).reshape(1, 1, len(tokens), 64)
        layer = KVCache()
        layer.update_and_fetch(rows, rows)
        self.cache.insert_cache(MODEL, tokens, [layer])

    def taken_up(self, tokens: list[int]) -> int:
        """How many tokens of a prompt need not be read."""
        return len(tokens) - len(self.cache.fetch_nearest_cache(MODEL, tokens)[1])

    def end(self) -> None:
        """Save all, as at SIGTERM."""
        self.store._ending.set()
        self.store.idle(self.cache)
        self.store._jobs.join()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{PROMPT_CACHE_SUFFIX}"))


# --- the text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "qwen3_next", "llama4_text", "mamba2"])
def test_the_next_engine_reads_only_what_is_new_and_writes_the_same(name: str, tmp_path: Path) -> None:
    models = make(name), noisy(name)
    first, second = Engine(tmp_path, models), Engine(tmp_path, models)
    cold, _ = first.ask(PROMPT)
    first.end()
    assert first.said == []
    longer = PROMPT + cold[:10]
    without = Generator(*models, ends=False)
    wanted = Asked(longer, max_tokens=24)
    without.serve((0, wanted))
    assert second.ask(PROMPT) == (cold, LENGTH - 1)
    tokens, taken_up = second.ask(longer)
    assert tokens == wanted.tokens
    assert taken_up >= LENGTH - 1
    assert second.said == []


def test_a_prompt_that_goes_another_way_is_cut_to_what_is_common(tmp_path: Path) -> None:
    models = make("llama"), noisy("llama")
    first, second = Engine(tmp_path, models), Engine(tmp_path, models)
    first.ask(PROMPT)
    first.end()
    other = [*PROMPT[:300], *reversed(PROMPT[300:])]
    assert second.ask(other)[0] == Engine(tmp_path / "none", models).ask(other)[0]
    assert Engine(tmp_path, models).taken_up(other) == 300


# --- kinds of cache -----------------------------------------------------------------------------------------


def filled(kind: Callable[[], Any], tokens: int) -> Any:
    layer = kind()
    rows = mx.random.normal((1, 2, tokens, 64)).astype(mx.bfloat16)
    layer.update_and_fetch(rows, rows)
    return layer


def kinds() -> list[Any]:
    arrays = ArraysCache(3)
    arrays[0], arrays[2] = mx.ones((1, 4)), mx.array(3)
    rotated = filled(lambda: RotatingKVCache(max_size=16, keep=2), 40)
    one = mx.random.normal((1, 2, 1, 64)).astype(mx.bfloat16)
    rotated.update_and_fetch(one, one)
    plain = filled(KVCache, 21)
    pair = CacheList(filled(KVCache, 5), arrays)
    return [
        plain,
        plain.to_quantized(bits=4),
        rotated,
        filled(lambda: ChunkedKVCache(16), 30),
        arrays,
        pair,
        KVCache(),
    ]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, mx.array):
        return a.dtype == b.dtype and bool(mx.array_equal(a, b))
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dict__"):
        return (
            type(a) is type(b)
            and vars(a).keys() == vars(b).keys()
            and same([*vars(a).values()], [*vars(b).values()])
        )
    return bool(a == b)


@pytest.mark.parametrize("layer", kinds(), ids=lambda layer: type(layer).__name__)
def test_each_kind_of_cache_comes_back_as_it_was(layer: Any) -> None:
    told, arrays = taken_apart([layer])
    data = b"".join(bytes(bytes_of(array)) for array in arrays)
    (back,) = put_together(told, list(arrays_in([shape_of(array) for array in arrays], memoryview(data))))
    (again,) = put_together(told, arrays)
    assert same(again, back)
    if isinstance(layer, KVCache) and layer.keys is not None:
        assert back.keys.shape[2] == back.offset == layer.offset
    more = mx.random.normal((1, 2, 3, 64)).astype(mx.bfloat16)
    if hasattr(layer, "update_and_fetch"):
        assert same(layer.update_and_fetch(more, more), back.update_and_fetch(more, more))


def test_what_holds_something_else_is_not_stored(tmp_path: Path) -> None:
    layer = KVCache()
    layer.model = object()
    with pytest.raises(UnstorableError, match="a object"):
        taken_apart([layer])
    engine = Engine(tmp_path)
    engine.put(PROMPT)
    engine.cache.layers_of(MODEL, PROMPT)[0].model = object()  # type: ignore[index]  # it is there
    engine.end()
    assert engine.said == ["a prompt cache could not be stored: it holds a object"]
    assert files(tmp_path) == []


# --- what is stored, and when -------------------------------------------------------------------------------


def test_nothing_is_saved_before_it_is_quiet_and_then_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, now = Engine(tmp_path), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    engine.put(PROMPT)
    engine.store.idle(engine.cache)
    now += module.QUIET_S - 0.1
    engine.store.idle(engine.cache)
    engine.store.busy()
    now += 1.0
    engine.store.idle(engine.cache)
    engine.store._jobs.join()
    assert files(tmp_path) == []
    now += module.QUIET_S
    engine.store.idle(engine.cache)
    engine.store._jobs.join()
    assert len(files(tmp_path)) == 1


def test_after_an_entry_it_rests_the_longer_the_larger_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, now = Engine(tmp_path), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "QUIET_S", 0.0)
    monkeypatch.setattr(module, "RATE", 1000)

    def idle() -> int:
        engine.store.idle(engine.cache)
        engine.store._jobs.join()
        return len(files(tmp_path))

    engine.put([1, *PROMPT])
    engine.put([2, *PROMPT])
    assert idle() == 1
    size = 2 * (LENGTH + 1) * 64 * 4
    now += size / 1000 - 0.1
    assert idle() == 1
    now += 0.2
    assert idle() == 2
    engine.put([3, *PROMPT])
    engine.end()  # there is no later
    assert len(files(tmp_path)) == 3


def test_the_end_waits_for_what_is_noted_but_not_for_what_is_not_or_when_there_is_no_time(
    tmp_path: Path,
) -> None:
    engine = Engine(tmp_path)
    engine.store.idle(engine.cache)
    engine.store.finish(lambda: False)  # nothing is noted
    engine.put(PROMPT)
    began = time.monotonic()
    engine.store.finish(lambda: True)
    engine.store.busy()
    engine.store.finish(lambda: False)  # a request is at work, and nobody saves
    assert module.BUSY_S <= time.monotonic() - began < 5.0
    assert files(tmp_path) == []
    ending = threading.Thread(target=engine.store.finish, args=(lambda: False,))
    engine.store._idle_since = time.monotonic()
    ending.start()
    engine.store.idle(engine.cache)
    ending.join()
    assert len(files(tmp_path)) == 1


def test_a_large_entry_is_saved_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE", 1)
    monkeypatch.setattr(module, "QUIET_S", 0.0)
    engine = Engine(tmp_path)
    engine.put(PROMPT)
    engine.store.idle(engine.cache)
    engine.store._jobs.join()
    assert files(tmp_path) == []
    for _ in range(2):
        engine.store.idle(engine.cache)
        engine.store._jobs.join()
    assert Engine(tmp_path).taken_up([*PROMPT, 1]) == LENGTH


def test_short_prompts_and_those_with_images_are_not_stored(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.put(PROMPT[: module.MIN_TOKENS - 1])
    engine.put([*PROMPT, -5])
    engine.end()
    assert (files(tmp_path), engine.said) == ([], [])
    assert engine.taken_up([-1] * LENGTH) == 0


def test_a_longer_text_takes_the_place_of_its_beginning(tmp_path: Path) -> None:
    for length in (300, LENGTH, 350):
        engine = Engine(tmp_path)
        engine.put(PROMPT[:length])
        engine.end()
    assert len(files(tmp_path)) == 1
    assert Engine(tmp_path).taken_up(PROMPT) == LENGTH - 1


def test_what_is_in_memory_is_not_read_again(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.put(PROMPT)
    engine.end()
    os.utime(files(tmp_path)[0], (1, 1))
    assert engine.taken_up(PROMPT) == LENGTH - 1
    assert files(tmp_path)[0].stat().st_mtime == 1


def test_a_folder_that_was_swept_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "caches"
    engine = Engine(folder)
    folder.rmdir()
    assert engine.taken_up(PROMPT) == 0
    engine.put(PROMPT)
    engine.end()
    assert (len(files(folder)), engine.said) == (1, [])


def test_of_what_is_never_saved_only_the_newest_is_remembered(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    for first in range(2 * module.MAX_NOTED):
        engine.put([first, *PROMPT])
    assert [key[0] for key in engine.store._noted] == [*range(module.MAX_NOTED, 2 * module.MAX_NOTED)]
    engine.end()
    assert len(files(tmp_path)) == len(engine.cache)


def test_it_is_ours_alone(tmp_path: Path) -> None:
    folder = tmp_path / "caches"
    engine = Engine(folder)
    engine.put(PROMPT)
    engine.end()
    modes = [path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())]
    assert modes[0] == 0o700
    assert set(modes[1:]) == {0o600}


@pytest.mark.fault(132)
def test_the_bound_is_kept_and_the_least_recently_used_goes(tmp_path: Path) -> None:
    size = 0
    for first in range(4):
        engine = Engine(tmp_path, bound=int(3.5 * size) if size else GB)
        engine.put([first, *PROMPT])
        engine.end()
        size = files(tmp_path)[0].stat().st_size
        for age, path in enumerate(
            sorted(files(tmp_path), key=lambda path: path.stat().st_mtime, reverse=True)
        ):
            os.utime(path, (9000 - age, 9000 - age))
        if first == 2:
            assert Engine(tmp_path).taken_up([0, *PROMPT, 9]) == LENGTH + 1  # used: it stays
    assert len(files(tmp_path)) == 3
    found = {first: Engine(tmp_path).taken_up([first, *PROMPT, 9]) for first in range(4)}
    assert found == {0: LENGTH + 1, 1: 0, 2: LENGTH + 1, 3: LENGTH + 1}
    assert engine.said == []


def test_a_chat_that_grows_takes_the_room_of_what_it_was_and_not_that_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Engine(tmp_path)
    for chat in ([0, *PROMPT[:300]], [1, *PROMPT]):
        first.put(chat)
        first.end()
    sizes = [path.stat().st_size for path in files(tmp_path)]
    (old,) = (path for path in files(tmp_path) if path.stat().st_size == max(sizes))
    engine = Engine(tmp_path, bound=sum(sizes) + 20_000)
    engine.put([1, *PROMPT, *PROMPT[:10]])
    append = NewFile._append

    def appending(file: NewFile, piece: Any) -> None:
        assert old.exists()  # until the new one is whole
        append(file, piece)

    monkeypatch.setattr(NewFile, "_append", appending)
    engine.end()
    assert engine.said == []
    assert (len(files(tmp_path)), old.exists()) == (2, False)
    assert Engine(tmp_path).taken_up([0, *PROMPT]) == 301
    assert Engine(tmp_path).taken_up([1, *PROMPT, *PROMPT]) == LENGTH + 11


def test_an_entry_that_can_be_cut_further_takes_the_place_of_the_same_text(tmp_path: Path) -> None:
    first, second = Engine(tmp_path), Engine(tmp_path)
    window = filled(lambda: RotatingKVCache(max_size=16), LENGTH)
    first.cache.insert_cache(MODEL, PROMPT, [window])
    first.end()
    assert [stored.reach for stored in second.store._files.look().values()] == [LENGTH]
    second.put(PROMPT)
    second.end()
    assert len(files(tmp_path)) == 1
    assert Engine(tmp_path).taken_up(PROMPT[:350]) == 349


def test_what_is_larger_than_the_bound_or_the_memory_is_left_alone(tmp_path: Path) -> None:
    engine = Engine(tmp_path, bound=1000)
    engine.put(PROMPT)
    engine.end()
    assert files(tmp_path) == []
    engine = Engine(tmp_path)
    engine.put(PROMPT)
    engine.end()
    other = Engine(tmp_path)
    other.cache.max_bytes = 1000
    os.utime(files(tmp_path)[0], (1, 1))
    assert other.taken_up(PROMPT) == 0
    assert ([path.stat().st_mtime for path in files(tmp_path)], other.said) == ([1], [])


def test_a_large_file_is_not_read_while_others_are_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Engine(tmp_path)
    first.put(PROMPT)
    first.end()
    engine = Engine(tmp_path)
    size = files(tmp_path)[0].stat().st_size
    for limit, left in ((size - 1, LENGTH), (size, 1)):
        monkeypatch.setattr(module, "MAX_BROUGHT_IN_COMPANY", limit)
        assert len(engine.cache.fetch_nearest_cache(MODEL, PROMPT, at_work=0)[1]) == left
    monkeypatch.setattr(module, "MAX_BROUGHT_IN_COMPANY", 0)
    assert Engine(tmp_path).taken_up(PROMPT) == LENGTH - 1  # nobody waits


@pytest.mark.parametrize("at_work", [None, 100_000])
def test_there_is_room_for_what_is_read_and_for_its_copy_beside_what_is_at_work(
    at_work: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Engine(tmp_path)
    first.put(PROMPT)
    first.end()
    size = files(tmp_path)[0].stat().st_size
    engine = Engine(tmp_path)
    for beginning in (1, 2, 3):
        engine.put([beginning, *PROMPT])
    each = engine.cache.nbytes // 3
    engine.cache.max_bytes = each * 3 // 2 + 2 * size + (at_work or 0)
    read, there = StoredFiles.read, []

    def reading(stored: StoredFiles, name: str) -> Any:
        there.append(engine.cache.nbytes)
        return read(stored, name)

    monkeypatch.setattr(StoredFiles, "read", reading)
    assert len(engine.cache.fetch_nearest_cache(MODEL, PROMPT, at_work=at_work)[1]) == 1
    assert there == [each]
    engine.cache.trim_to(n_bytes=0)
    engine.cache.max_bytes = size + (at_work or 0) - 1
    assert len(engine.cache.fetch_nearest_cache(MODEL, PROMPT, at_work=at_work)[1]) == LENGTH
    assert there == [each]  # it does not fit at all


# --- files that are not what they should be -----------------------------------------------------------------


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)


def _replaced(path: Path, old: bytes, new: bytes) -> None:
    """Make a file that is whole, and another one."""
    data = path.read_bytes()[:-4].replace(old, new)
    path.write_bytes(data + zlib.crc32(data).to_bytes(4, "little"))


def _other_tokens(path: Path) -> None:
    _replaced(path, bytes([PROMPT[395], 0, 0, 0, PROMPT[396]]), bytes([9, 0, 0, 0, PROMPT[396]]))


def _other_class(path: Path) -> None:
    _replaced(path, b'"KVCache"', b'"Exploit"')


def _other_shape(path: Path) -> None:
    _replaced(path, b"[1, 1, 400, 64]", b"[1, 1, 400, 32]")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _noise(path: Path) -> None:
    path.write_bytes(os.urandom(5000))


def _readable(path: Path) -> None:
    path.chmod(0o644)


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def _other_models(path: Path) -> None:
    _replaced(path, b"a" * 64, b"a" * 63 + b"b")


@pytest.mark.fault(130)
@pytest.mark.parametrize(
    "harm",
    [
        *(_shorter, _flipped, _empty, _noise, _readable, _link),
        *(_other_models, _other_tokens, _other_class, _other_shape),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_removed_and_said(
    harm: Callable[[Path], None], tmp_path: Path
) -> None:
    first = Engine(tmp_path)
    first.put(PROMPT)
    first.end()
    (path,) = files(tmp_path)
    harm(path)
    engine = Engine(tmp_path)
    assert engine.taken_up(PROMPT) == 0
    assert files(tmp_path) == []
    (said,) = engine.said
    assert said.startswith(f"the stored prompt {path.name} was removed: ")
    assert (first.outcomes, engine.outcomes) == (["stored"], ["refused"])


def test_other_models_take_up_nothing_and_remove_nothing(tmp_path: Path) -> None:
    first = Engine(tmp_path)
    first.put(PROMPT)
    first.end()
    other = Engine(tmp_path, identity="b" * 64)
    assert other.taken_up(PROMPT) == 0
    assert (len(files(tmp_path)), other.said) == (1, [])


def test_a_file_that_goes_meanwhile_is_none(tmp_path: Path) -> None:
    first = Engine(tmp_path)
    first.put(PROMPT)
    first.end()
    second = Engine(tmp_path)
    assert second.store._files.look()
    files(tmp_path)[0].unlink()
    assert second.taken_up(PROMPT) == 0
    assert second.said == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("known", [False, True])
def test_a_file_that_cannot_be_read_for_now_is_kept(
    known: bool, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Engine(tmp_path)
    for beginning in (1, 2):
        first.put([beginning, *PROMPT])
    first.end()
    engine = Engine(tmp_path)
    if known:
        assert len(engine.store._files.look()) == 2

    def short(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as shortage:
        shortage.setattr("draftd.engine.stored_prompts.files.os.open", short)
        assert [engine.taken_up([beginning, *PROMPT, 9]) for beginning in (1, 2)] == [0, 0]
    assert engine.said == [f"a stored prompt could not be read, and is kept: {os.strerror(number)}"]
    assert len(files(tmp_path)) == 2
    assert [engine.taken_up([beginning, *PROMPT, 9]) for beginning in (1, 2)] == [LENGTH + 1] * 2


@pytest.mark.fault(131)
def test_a_disk_that_takes_no_more_is_said_and_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tmp_path)
    engine.put(PROMPT)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("draftd.engine.stored_prompts.files.NewFile._append", full)
    engine.end()
    assert engine.said == ["a prompt cache could not be stored: No space left on device"]
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.fault(133)
def test_what_a_killed_engine_left_unfinished_is_swept_and_that_of_a_living_one_is_not(
    tmp_path: Path,
) -> None:
    dead, living = (tmp_path / f"x{PROMPT_CACHE_SUFFIX}.{pid}.unfinished" for pid in (os.getpid(), 2**22 + 1))
    dead.write_bytes(b"x")  # in a container the next engine may well have the same number
    with living.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Engine(tmp_path)
        assert (dead.exists(), living.exists()) == (False, True)
    Engine(tmp_path)
    assert not living.exists()


def test_a_file_is_held_while_it_is_written_until_it_is_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(tmp_path)
    engine.put(PROMPT)
    append, room_for = NewFile._append, StoredFiles.room_for
    starts = 0

    def start() -> None:
        nonlocal starts
        starts += 1
        StoredFiles(tmp_path, GB, "a" * 64, print, print)._sweep()  # another engine starts

    def appending(file: NewFile, piece: Any) -> None:
        start()
        append(file, piece)

    def making_room(stored: StoredFiles, *how: Any) -> Any:
        start()
        return room_for(stored, *how)

    monkeypatch.setattr(NewFile, "_append", appending)
    monkeypatch.setattr(StoredFiles, "room_for", making_room)
    engine.end()
    assert (
        starts == 5
    )  # before it is begun, its beginning, its keys, its values, before it is put in its place
    assert (len(files(tmp_path)), engine.said) == (1, [])


def test_an_entry_that_breaks_off_leaves_nothing_half_and_the_next_one_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, now = Engine(tmp_path), time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(module, "QUIET_S", 0.0)
    monkeypatch.setattr(module, "RATE", 1000)
    engine.put(PROMPT)
    pieces: list[memoryview] = []

    def broken(array: Any) -> memoryview:
        if pieces:
            raise RuntimeError("out of memory")
        pieces.append(bytes_of(array))
        return pieces[0]

    with monkeypatch.context() as shortage:
        shortage.setattr(module, "bytes_of", broken)
        engine.store.idle(engine.cache)
        engine.store._jobs.join()
    assert engine.said == ["a prompt cache could not be stored: RuntimeError('out of memory')"]
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert engine.store._rests_until == now + pieces[0].nbytes / 1000  # that much was written
    now = engine.store._rests_until
    engine.put([1, *PROMPT])
    engine.store.idle(engine.cache)
    engine.store._jobs.join()
    assert len(files(tmp_path)) == 1
    assert (
        engine.store._rests_until == now + 2 * (LENGTH + 1) * 64 * 4 / 1000
    )  # the first one does not count again
