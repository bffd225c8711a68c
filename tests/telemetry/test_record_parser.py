"""What a log line says, and what an engine's record says; None for anything else, whatever it holds."""

import json
import re
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftd.protocol import PAPER_RULE, PLAIN_RULE, CacheSize, Costs
from draftd.telemetry.figures import MAX_COUNT
from draftd.telemetry.prompt_caches import StoredPrompt
from draftd.telemetry.rank_records import Rank, Ranks
from draftd.telemetry.record_parser import (
    MAX_ACCEPTANCE_LINE,
    MAX_LINE_COUNT,
    MAX_TEXT,
    parse_line,
    parse_record,
)
from draftd.telemetry.records import (
    DraftAcceptance,
    EngineStarted,
    GenerationReport,
    Memory,
    ModelFacts,
    ModelsLoaded,
    PromptProgress,
    Record,
)

ISSUED = (
    '{"event": "generation", "rounds": 12, "proposed": 60, "accepted": 41, '
    '"truncated_rounds": 1, "draft_length": 5, "accepted_by_position": [11, 10, 8, 7, 5], '
    '"proposed_by_position": [12, 12, 12, 12, 12], "tokens": 57, '
    '"memory": {"active": 1, "cache": 2, "peak": 3}}'
)
LLAMA = re.compile(
    r".*draft acceptance rate = \S+ \( *(?P<accepted>\d+) accepted / +(?P<proposed>\d+) generated\)"
)


def engine(**said: object) -> str:
    return json.dumps(said)


def parse(record: str) -> Record | None:
    """What the engine sent, read."""
    return parse_record(record.encode(errors="surrogatepass"))


def llama(accepted: object, proposed: object) -> str:
    """The line of another server."""
    return f"slot print: draft acceptance rate = 0.5 (  {accepted} accepted /   {proposed} generated)"


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (llama(4, 5), DraftAcceptance(4, 5)),
        (llama(0, 0), DraftAcceptance(0, 0)),
        (llama(MAX_LINE_COUNT, MAX_LINE_COUNT), DraftAcceptance(MAX_LINE_COUNT, MAX_LINE_COUNT)),
        ("INFO:root:Prompt processing progress: 512/2048", PromptProgress(512, 2048)),
        ("Prompt processing progress: 0/0", PromptProgress(0, 0)),
    ],
)
def test_lines_that_report(line: str, record: Record) -> None:
    assert parse_line(line, LLAMA) == record


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Starting httpd at 127.0.0.1 on port 8000...",
        "Draft tokens accepted: 4/5 (80%)",
        ISSUED,
        "draftd-engine " + ISSUED,
        llama(6, 5),
        llama(-4, 5),
        llama("٤", "٥"),
        llama(1, MAX_LINE_COUNT + 1),
        llama(1, "9" * 5000),
        llama("9" * 500, "9" * 500),
        llama(4, 5) + ' HTTP/1.0" 404 -',
        "x" * MAX_ACCEPTANCE_LINE + llama(4, 5),
        "Prompt processing progress: 5/4",
        f"Prompt processing progress: 5/{MAX_COUNT + 1}",
        "Prompt processing progress: 5/" + "9" * 13,
    ],
)
def test_lines_that_report_nothing(line: str) -> None:
    assert parse_line(line, LLAMA) is None


def test_without_a_pattern_no_line_counts() -> None:
    assert parse_line("Draft tokens accepted: 4/5 (80%)", None) is None
    assert parse_line(llama(4, 5), None) is None
    assert parse_line("Prompt processing progress: 1/2", None) == PromptProgress(1, 2)


def test_a_pattern_may_say_whose_request_it_was_and_need_not_match_all_groups() -> None:
    pattern = re.compile(r"(\[(?P<profile>\w+)\] )?(?P<accepted>\d+)/(?P<proposed>\d+)?")
    assert parse_line("[fast] 4/5", pattern) == DraftAcceptance(4, 5, "fast")
    assert parse_line("4/5", pattern) == DraftAcceptance(4, 5)
    assert parse_line("4/", pattern) is None


@pytest.mark.parametrize(
    ("line", "record"),
    [
        (engine(event="generation", rounds=0, proposed=0, accepted=0, profile=7), GenerationReport(0, 0, 0)),
        (
            ISSUED,
            GenerationReport(12, 60, 41, 1, 5, (11, 10, 8, 7, 5), (12, 12, 12, 12, 12), 57, Memory(1, 2, 3)),
        ),
        (f"  {ISSUED}  ", parse(ISSUED)),
        (engine(event="generation", rounds=0, proposed=0, accepted=0), GenerationReport(0, 0, 0)),
        (engine(event="generation", rounds=1, proposed=1, accepted=1, new=[{}]), GenerationReport(1, 1, 1)),
        (
            engine(
                event="generation",
                rounds=1,
                proposed=5,
                accepted=2,
                drafters={"lookup": {"proposed": 5, "accepted": 2}, "eagle": {"proposed": 1, "accepted": 1}},
            ),
            GenerationReport(1, 5, 2, drafters={"lookup": DraftAcceptance(2, 5)}),
        ),
        (
            engine(event="generation", rounds=1, proposed=1, accepted=1, rule="nobody's"),
            GenerationReport(1, 1, 1),
        ),
        (
            engine(event="generation", rounds=1, proposed=1, accepted=1, tokens=None),
            GenerationReport(1, 1, 1),
        ),
        (engine(event="started", accounting=False), EngineStarted(False)),
        (engine(event="prompt_cache", entries=2, bytes=3, limit=4), CacheSize(2, 3, 4)),
        (engine(event="prompt_cache", entries=2, bytes=3, limit=2**63), CacheSize(2, 3, None)),
        (engine(event="stored_prompt", outcome="restored"), StoredPrompt("restored")),
        (
            engine(event="started", accounting=True, mlx_lm="0.32.2", hooks={"a": True, "b": "gone", "c": 1}),
            EngineStarted(True, "0.32.2", {"a": True, "b": "gone", "c": "1"}),
        ),
        (
            engine(
                event="loaded",
                target={
                    "cache": ["KVCache"],
                    "refusal": None,
                    "window": None,
                    "vocabulary": 9,
                    "context": 8,
                },
                draft=None,
            ),
            ModelsLoaded(ModelFacts(("KVCache",), None, None, 9, 8)),
        ),
        (
            engine(
                event="loaded",
                target={"cache": ["ArraysCache", "KVCache"], "refusal": "no", "batch": "nor"},
                draft={"cache": ["RotatingKVCache"], "refusal": None, "new": [{}]},
            ),
            ModelsLoaded(
                ModelFacts(("ArraysCache", "KVCache"), "no", "nor"), ModelFacts(("RotatingKVCache",))
            ),
        ),
        (
            engine(
                event="ranks",
                ranks=[
                    {"rank": 0, "host": "", "pid": 7, "memory": 10, "silent": 0.5},
                    {"rank": 1, "host": "mini", "pid": None, "memory": 20, "silent": 3, "new": 1},
                ],
            ),
            Ranks((Rank(0, "", 7, 10, 0.5), Rank(1, "mini", None, 20, 3.0))),
        ),
    ],
)
def test_records(line: str, record: Record | None) -> None:
    assert record is not None
    assert parse(line) == record
    hash(parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "Draft tokens accepted: 4/5 (80%)",
        "Prompt processing progress: 4/5",
        "INFO " + ISSUED,
        "{",
        "{}",
        "[]",
        "1",
        "\ud800",
        '{"event": []}',
        '{"event": ' + "[" * 100_000,
        '{"event": "generation", "rounds": ' + "9" * 5000 + "}",
        '{"event": "generation", "rounds": NaN, "proposed": 1, "accepted": 1}',
        engine(event="elsewhere"),
        engine(event="generation"),
        engine(event="generation", rounds=1, proposed=1),
        engine(event="generation", rounds=1, proposed=1, accepted=2),
        engine(event="generation", rounds=-1, proposed=1, accepted=1),
        engine(event="generation", rounds=1.0, proposed=1, accepted=1),
        engine(event="generation", rounds=True, proposed=1, accepted=1),
        engine(event="generation", rounds="1", proposed=1, accepted=1),
        engine(event="generation", rounds=1, proposed=MAX_COUNT + 1, accepted=1),
        engine(event="generation", rounds=1, proposed=1, accepted=1, truncated_rounds=2),
        engine(event="generation", rounds=1, proposed=1, accepted=1, accepted_by_position=[1]),
        engine(event="generation", rounds=1, proposed=1, accepted=1, proposed_by_position=[-1]),
        engine(event="generation", rounds=1, proposed=1, accepted=1, proposed_by_position=7),
        engine(event="generation", rounds=1, proposed=1, accepted=1, drafters=[]),
        engine(event="generation", rounds=1, proposed=1, accepted=1, drafters={"model": {"proposed": 1}}),
        engine(
            event="generation",
            rounds=1,
            proposed=1,
            accepted=1,
            drafters={"model": {"proposed": 1, "accepted": 2}},
        ),
        engine(event="generation", rounds=1, proposed=1, accepted=1, proposed_by_position=[0] * 2000),
        engine(event="generation", rounds=1, proposed=1, accepted=1, memory=[]),
        engine(event="generation", rounds=1, proposed=1, accepted=1, memory={"active": -1}),
        engine(event="generation", rounds=1, proposed=1, accepted=1, tokens=-1),
        engine(event="generation", rounds=1, proposed=1, accepted=1, speedup=0),
        engine(event="generation", rounds=1, proposed=1, accepted=1, speedup=float("nan")),
        engine(event="generation", rounds=1, proposed=1, accepted=1, speedup="2"),
        engine(event="generation", rounds=1, proposed=1, accepted=1, costs=[]),
        engine(event="generation", rounds=1, proposed=1, accepted=1, costs={"single": 1, "draft": 1}),
        engine(event="started"),
        engine(event="started", accounting=1),
        engine(event="prompt_cache", entries=2),
        engine(event="prompt_cache", entries=-1, bytes=3, limit=4),
        engine(event="stored_prompt", outcome="eaten"),
        engine(event="stored_prompt", outcome=["stored"]),
        engine(event="loaded"),
        engine(event="loaded", target=[]),
        engine(event="loaded", target={"cache": ["KVCache"], "refusal": ["no"]}),
        engine(event="loaded", target={"cache": "KVCache"}),
        engine(event="loaded", target={"cache": [1]}),
        engine(event="loaded", target={"cache": [], "refusal": 1}),
        engine(event="loaded", target={"cache": [], "batch": 1}),
        engine(event="loaded", target={"cache": [], "context": -1}),
        engine(event="loaded", target={"cache": []}, draft={}),
        engine(event="ranks"),
        engine(event="ranks", ranks=[1]),
        engine(event="ranks", ranks=[{"rank": 0, "host": "", "memory": 1}]),
        engine(event="ranks", ranks=[{"rank": 0, "host": "", "memory": -1, "silent": 1}]),
        engine(event="ranks", ranks=[{"rank": 0, "host": None, "memory": 1, "silent": 1}]),
        engine(event="ranks", ranks=[{"rank": 0, "host": "", "memory": 1, "silent": float("nan")}]),
        engine(event="ranks", ranks=[{"rank": 0, "host": "", "memory": 1, "silent": True}]),
        engine(event="ranks", ranks=[{"rank": 0, "host": "", "memory": 1, "silent": 1}] * 65),
        ISSUED[:-9],
    ],
)
def test_what_is_no_record(line: str) -> None:
    assert parse(line) is None


marks = [
    "draft acceptance rate = 1 (",
    " accepted /",
    " generated)",
    "Prompt processing progress: ",
    "{",
    "}",
    "4",
    "/",
    '"event":',
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
keys = st.sampled_from(
    [
        "event",
        "rounds",
        "proposed",
        "accepted",
        "memory",
        "accounting",
        "mlx_lm",
        "hooks",
        "target",
        "draft",
        "tokens",
        "rule",
        "costs",
        "speedup",
    ]
)
events: st.SearchStrategy[dict[str, str]] = st.fixed_dictionaries(
    {"event": st.sampled_from(["generation", "started", ""])}
)


@given(line=st.text() | st.lists(st.sampled_from(marks) | st.text(max_size=3)).map("".join))
def test_never_raises_on_text(line: str) -> None:
    parse(line)
    parse_line(line, LLAMA)


@given(said=st.dictionaries(keys, json_values), event=events)
def test_never_raises_on_json(said: dict[str, object], event: dict[str, str]) -> None:
    parse(engine(**{**said, **event}))


@given(line=st.sampled_from([ISSUED, llama(4, 5)]), data=st.data())
def test_a_damaged_line_never_raises_nor_lies_about_order(line: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(line)))
    end = data.draw(st.integers(start, len(line)))
    damaged = line[:start] + data.draw(st.text(max_size=3)) + line[end:]
    record = parse(damaged) or parse_line(damaged, LLAMA)
    if isinstance(record, DraftAcceptance | GenerationReport):
        assert 0 <= record.accepted <= record.proposed <= MAX_COUNT


counts = st.integers(0, MAX_COUNT)


pairs = st.tuples(counts, counts).map(lambda pair: (max(pair), min(pair)))
memories = st.none() | st.builds(Memory, counts, counts, counts)


seconds = st.floats(1 / MAX_COUNT, MAX_COUNT)


@given(
    rounds=pairs,
    tokens=pairs,
    places=st.lists(pairs, max_size=9),
    length=st.none() | counts,
    memory=memories,
    rule=st.none() | st.sampled_from((PAPER_RULE, PLAIN_RULE)),
    costs=st.none() | st.builds(Costs, seconds, seconds, seconds),
    profile=st.none() | st.text(),
)
def test_engine_report_round_trips(
    rounds: tuple[int, int],
    tokens: tuple[int, int],
    places: list[tuple[int, int]],
    length: int | None,
    memory: Memory | None,
    rule: str | None,
    costs: Costs | None,
    profile: str | None,
) -> None:
    report = GenerationReport(
        rounds=rounds[0],
        truncated_rounds=rounds[1],
        proposed=tokens[0],
        accepted=tokens[1],
        draft_length=length,
        proposed_by_position=tuple(place[0] for place in places),
        accepted_by_position=tuple(place[1] for place in places),
        tokens=length,
        memory=memory,
        rule=rule,
        costs=costs,
        speedup=costs.single if costs else None,
        profile=profile,
    )
    assert parse(engine(event="generation", **asdict(report))) == report


@given(
    started=st.builds(
        EngineStarted, st.booleans(), st.text(), st.dictionaries(st.text(), st.booleans() | st.text())
    )
)
def test_engine_greeting_round_trips(started: EngineStarted) -> None:
    assert parse(engine(event="started", **asdict(started))) == started


facts = st.builds(
    ModelFacts,
    st.lists(st.text()).map(tuple),
    *[st.none() | st.text(max_size=MAX_TEXT)] * 2,
    *[st.none() | st.integers(0, MAX_COUNT)] * 2,
)


@given(loaded=st.builds(ModelsLoaded, facts, st.none() | facts))
def test_loaded_models_round_trip(loaded: ModelsLoaded) -> None:
    assert parse(engine(event="loaded", **asdict(loaded))) == loaded
