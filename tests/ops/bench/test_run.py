"""bench: what is sent for each trial, and what becomes of the answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from draftd.errors import DraftdError
from draftd.ops.bench.plan import TEMPERATURES, Trial, make_plan, schedule
from draftd.ops.bench.run import make_report, measure
from draftd.ops.generation import EmptyAnswerError, Generation, OpenAIServer
from draftd.profiles import Profile

PLAN = make_plan([Profile(name="p", model="big", draft_model="small", num_draft_tokens=5)], [3])
SPEEDS = {0: 100.0, 3: 200.0, 5: 50.0, "auto": 150.0}  # tokens per second, by draft length


class Scripted(OpenAIServer):
    """Answers at the speed of the draft length that is asked for."""

    def __init__(self) -> None:
        super().__init__("http://unused")
        self.asked: list[dict[str, Any]] = []

    def generate(self, body: Mapping[str, Any], show: Any = None) -> Generation:
        self.asked.append(dict(body))
        seconds = body["max_tokens"] / SPEEDS[body.get("num_draft_tokens", 0)]
        told = {"draft_n": 40, "draft_n_accepted": 30} if body["model"] == "drafting" else {}
        return Generation("text", body["max_tokens"], True, seconds / 10, seconds, "length", told)


def test_every_trial_asks_its_own_worker_with_its_own_draft_length() -> None:
    server, told = Scripted(), list[Trial]()
    trials = schedule(PLAN.variants, 2)
    measure(server, PLAN, trials, 100, told.append)
    assert told == trials
    warm, measured = server.asked[:8], server.asked[8:]
    assert [(b["model"], b.get("num_draft_tokens"), b["temperature"]) for b in warm] == [
        (worker, length, temperature)
        for worker, length in (("baseline", None), ("drafting", 3), ("drafting", 5), ("drafting", "auto"))
        for temperature in TEMPERATURES
    ]
    for body, trial in zip(measured, trials, strict=True):
        assert body["messages"] == [{"role": "user", "content": trial.prompt}]
        assert body["model"] == trial.variant.worker
        assert body.get("num_draft_tokens", 0) == trial.variant.draft_length
        assert (body["temperature"], body["max_tokens"]) == (trial.temperature, 100)
        assert body["seed"] == trial.run + 1
        assert body["drafters"] == (["model"] if trial.variant.draft_length else [])


def test_the_report_is_made_of_the_measured_speeds() -> None:
    trials = schedule(PLAN.variants, 3)
    made = make_report(PLAN, measure(Scripted(), PLAN, trials, 100, len_of), 3, 100, busy=1.0)
    assert (made.model, made.draft_model) == ("big", "small")
    assert [standing.variant for standing in made.overall] == ["3 (fast)", "auto", "5 (balanced)"]
    assert [standing.speed_up for standing in made.overall] == pytest.approx([2, 1.5, 0.5])
    assert {cell.acceptance for cell in made.cells} == {None, 0.75}
    assert made.verdict[-1].startswith("overall: 3 (fast) is best: 2.00x")
    assert "mlx-lm" in made.versions
    assert " GB, " in made.machine


def len_of(_trial: Trial) -> None:
    pass


class Silent(Scripted):
    """Has no word for the prompts of one kind."""

    def __init__(self, *prompts: str) -> None:
        super().__init__()
        self.silent = prompts

    def generate(self, body: Mapping[str, Any], show: Any = None) -> Generation:
        if body["messages"][0]["content"] in self.silent:
            raise EmptyAnswerError("the answer has no text")
        return super().generate(body, show)


def test_an_empty_answer_is_left_out_and_nothing_but_empty_answers_is_an_error() -> None:
    trials = schedule(PLAN.variants, 1)
    code = [trial for trial in trials if trial.kind == "code"]
    samples = measure(Silent(code[0].prompt), PLAN, trials, 100, len_of)
    assert len(samples) == len(trials) - len(code)
    with pytest.raises(DraftdError, match="nothing to compare"):
        measure(Silent(code[0].prompt), PLAN, code, 100, len_of)
