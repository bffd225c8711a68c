"""Stored prompts with tiny models: the next engine takes them up, and its text is what it would have been."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from mlx_lm.models.cache import RotatingKVCache

from draftd.engine.stored_prompts import store as module
from draftd.engine.stored_prompts.files import NewFile, StoredFiles
from tests.engine.architectures.models import make, noisy
from tests.engine.stand_in import Asked, Generator
from tests.engine.stored_prompts.engines import GB, LENGTH, MODEL, PROMPT, Engine, files, filled

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
    engine.store.busy(in_company=False)
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
    engine.store.busy(in_company=False)
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
    engine = Engine(tmp_path)
    for in_company, taken_up in ((True, 0), (False, LENGTH - 1)):  # as mlx_lm's batches do, which say no more
        engine.store.busy(in_company=in_company)
        assert engine.taken_up(PROMPT) == taken_up


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
