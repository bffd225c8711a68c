"""How each worker did in the last hour."""

from __future__ import annotations

from draftd.telemetry.history import MAX_STEPS, History, Level
from draftd.telemetry.request_record import RequestRecord


def ended(profile: str | None, speed: float | None, proposed: int = 0, accepted: int = 0) -> RequestRecord:
    return RequestRecord(
        "1", "messages", profile=profile, tokens_per_second=speed, proposed=proposed, accepted=accepted
    )


class Kept:
    def __init__(self) -> None:
        self.levels = [Level("a", 0, 100)]
        self.now = 1000.0
        self.history = History(lambda: self.levels, lambda: self.now)

    def figures(self, profile: str) -> dict[str, list[float | None]]:
        found: dict[str, list[float | None]] = self.history.as_json()["profiles"][profile]
        return found


def test_a_step_has_the_median_speed_the_acceptance_and_the_levels() -> None:
    kept = Kept()
    for record in (ended("a", 10.0, 8, 6), ended("a", 40.0, 8, 2), ended("a", 20.0), ended(None, None)):
        kept.history.add(record)
    kept.levels = [Level("a", 3, 200)]
    kept.history.end_step()
    kept.history.end_step()
    assert kept.figures("a") == {
        "speed": [20.0, None], "acceptance": [0.5, None], "queue": [3, 3], "memory": [200, 200],
    }  # fmt: skip
    assert kept.history.as_json()["ended_at"] == 1000.0


def test_an_hour_is_kept_and_all_are_of_the_same_length() -> None:
    kept = Kept()
    for _ in range(MAX_STEPS - 1):
        kept.history.end_step()
    kept.levels = [Level("a", 1, 100), Level("b", 2, None)]
    kept.history.end_step()
    kept.history.end_step()
    assert len(kept.figures("a")["queue"]) == len(kept.figures("b")["queue"]) == MAX_STEPS
    assert kept.figures("b")["queue"][-3:] == [None, 2, 2]
    kept.levels = [Level("b", 0, None)]
    kept.history.end_step()
    assert list(kept.history.as_json()["profiles"]) == ["b"]
