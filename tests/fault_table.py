"""Prints, after a run, the table of the faults that tests marked `fault(number)` stand for.

A test states what it measured with `measured(seconds)`; a row whose tests measured nothing shows how long the
longest of them took, in parentheses. A row that no test stands for, or whose test failed, is shown as such; with
`--all-faults` it also fails the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

FAULTS = {
    1: ("worker killed while idle", "noticed < 0.1 s, backoff, restart; requests wait"),
    2: ("worker killed mid-stream", "error event < 1 s, never replayed"),
    3: ("worker dies after half an event", "the half is dropped, then an error event"),
    4: ("worker dies before headers", "502, not replayed"),
    5: ("worker dies while loading", "backoff; requests that wait get 503"),
    6: ("bad model or draft path", "failed at last; its last lines in status and in the 503"),
    7: ("crash loop", "delays grow, failed after 5; others untouched; restart revives"),
    8: ("worker hung, idle", "unhealthy, TERM and CONT, KILL, replaced"),
    9: ("worker hung mid-stream", "error event; replaced"),
    10: ("healthy, but generation is wedged", "replaced; a slow prompt that progresses is left alone"),
    11: ("generation thread dead", "error; replaced; its 404 reaches no client"),
    12: ("slow load", "no restart before the start timeout"),
    13: ("a stranger holds the port", "next port, holder named, no prompt sent to it"),
    14: ("memory over the limit", "drained, restarted, with the reason 'memory'"),
    15: ("child ignores SIGTERM", "group killed at the grace; stop <= grace + 1 s"),
    16: ("child has grandchildren", "none left after stop or crash"),
    17: ("100 MB of log without newline", "child never blocks, memory bounded, bytes escaped"),
    18: ("disk full for logs", "serving goes on, a counter shows it"),
    19: (
        "SIGTERM while streaming",
        "streams may finish, the rest end with an error, exit 0; a second one ends it now",
    ),
    20: ("daemon killed", "no child after 2 s; a new start is clean"),
    21: ("started twice", "the second is refused, the first untouched"),
    22: ("stale note, recycled pid", "a stranger is never signalled"),
    23: ("broken profile on reload", "refused with file, line and reason; nothing restarts"),
    24: ("reload with one thing changed", "only the changed worker's pid changes"),
    25: ("profile removed while streaming", "new requests 404; the stream drains"),
    26: ("file descriptors exhausted", "workers restart, health is not judged, new clients wait"),
    27: ("1000 idle connections", "/healthz < 100 ms; idle ones are closed"),
    28: ("slow headers or body", "closed, or 408"),
    29: ("client that stops reading", "memory flat, write timeout, worker freed"),
    30: ("client leaves", "slot free and worker idle < 1 s"),
    31: ("1 GB body; gzip", "413 early; 415"),
    32: ("hostile JSON", "400, never 500; not logged"),
    33: ("`model` twice", "what was routed is what is forwarded"),
    34: ("unknown model", "404 naming the models; no worker asked"),
    35: ("dangerous fields", "made safe, or 400"),
    36: ("request smuggling", "400 and close; at most one request upstream"),
    37: ("hop-by-hop headers, Upgrade", "not forwarded; no 101; token checked"),
    38: ("Expect: 100-continue", "100 only after token and size"),
    39: ("HTTP/1.0, HEAD, OPTIONS", "no chunking; no body; no CORS grant"),
    40: ("web page attack", "403 or 415; workers' ports too"),
    41: ("names with ../, links", "refused at load"),
    42: ("canary key and prompt", "in no log, argv, metric, status or error"),
    43: ("10,000 model names", "number of series unchanged"),
    44: ("open address without a key", "refuses to start"),
    45: ("wall clock jumps a day", "no restart, no stuck delay"),
    46: ("all workers killed at once", "restarted, one load at a time"),
    47: ("prompt equal to a cached one", "no crash; same text as without a draft"),
    48: ("two clients at once", "served in order; queue depth in metrics"),
    49: ("a stop text across tokens", "the answer ends before it, streamed or not; so does the generation"),
    50: ("log-probabilities", "those of the tokens that were generated, in OpenAI's forms, streamed too"),
    51: ("malformed tool call", "text, and never a lost answer"),
    52: ("prompt longer than the context", "400 before anything is read"),
    53: ("a ready worker's first failure", "the next start comes after 0.1 s, in its first minute too"),
    54: ("the daemon's working directory is gone", "workers start all the same"),
    55: ("state folder swept", "claimed again < 2 s: a second start is refused, the first is found"),
    56: ("an exception in one worker's task", "logged; that worker goes on, others are not affected"),
    57: (
        "a load that makes no progress",
        "its turn is given up, then it has failed, with its probe's answer",
    ),
    58: ("workers flood their output", "half of the loop at most, all together; others answer as before"),
    59: ("a field that nothing honours", "400 with its name, never accepted and ignored"),
    65: ("foreign servers", 'answer as promised; errors keep status, type and code; no false "ended"'),
    67: ("a stranger asks a worker's own port", "403 without this start's secret, which nobody is told"),
    68: (
        "a log that lies about drafting",
        "it is not counted: the engine's own channel is, or a profile's pattern",
    ),
    70: ("`up` cannot start", "one sentence, exit 2 where a restart mends nothing; a free port is offered"),
    71: ("foreign terminal escapes", "shown as text by every command; only one place prints"),
    72: ("a state folder open to others", "refused, or mended; no link in it is followed"),
    73: ("a pipe or device as a file", "an error says what it is; nothing waits for it"),
    74: ("bodies of 31 MB", "parsed elsewhere: nobody is held up, health not judged, memory given back"),
    75: ("pages of an allowed origin", "the preflight needs no key; the page sends it, and reads the answer"),
    76: ("a Host that only begins like ours", "403; a security header sent twice: 400"),
    77: (
        "HTTP/2.0 lines, 9 KB of cookies, garbage",
        "505, 431 with the reason; earlier requests are answered",
    ),
    78: ("shutdown while clients wait", "503 `stopping` with Retry-After; a cut-off stream says so too"),
    90: ("a client gone, unread requests behind it", "noticed within a second; its place is free"),
    91: (
        "counting the tokens of a 31 MB prompt",
        "counted up to 4 contexts, then refused; no memory is kept",
    ),
    100: ("GPU memory, which is in no resident size", "the footprint is measured, of foreign servers too"),
    101: ("memory gets short", "known from the system's memory pressure, never from what is free; reported"),
    102: (
        "several workers wire GPU memory",
        "never more than the GPU may have in all; each is told its share",
    ),
    103: (
        "more would start than fits in memory",
        "only the default profile's worker starts; the reason in GB",
    ),
    104: ("the machine sleeps for a night", "on waking no load is ended, no worker killed, no health judged"),
    105: ("a Mac falls asleep mid-answer", "kept awake while there is work, and no longer"),
    106: ("more models are asked for than fit", "loaded in turn, within the budget; nobody waits for ever"),
    110: ("a Mac checked beside the user's own agent", "another label, folder and ports; nothing is left"),
    111: ("nobody is logged in at the Mac's screen", "the agent runs in the user's own domain, and says so"),
    112: ("an agent beside another daemon", "waits quietly until that one has ended; launchd does not spin"),
    113: ("the agent's folders are not this shell's", "doctor, bench and prometheus find the daemon too"),
    114: ("an Intel Python on a Mac", "refused in one sentence before an installer looks for wheels"),
    115: (
        "the GPU may use less than all memory",
        "the doctor goes by the same limit, and says what would start",
    ),
    120: (
        "an address typed with /v1 twice, without it, with // or a trailing /",
        "taken as what it must mean",
    ),
    121: (
        "a request in none of our dialects",
        "passed on as it is to a command that knows it; 404 without one",
    ),
    122: ("a tool with a grammar of its own", "its input fits, however the model writes calls; else 400"),
    123: ("ten turns of an agent", "every turn reads only what is new in it, in every dialect"),
    130: (
        "a stored prompt cache is damaged, foreign, readable by others or a link",
        "removed and reported, never used",
    ),
    131: ("disk full for prompt caches", "reported; serving goes on, no half-written file is left"),
    132: (
        "more prompt caches than the limit allows",
        "the least recently used are removed, before the new one is written",
    ),
    133: ("engine killed while it stores a prompt cache", "no file under the final name; the rest is swept"),
    134: ("launcher or a rank of a group killed", "no rank is left; the group is replaced"),
    135: ("rank killed in mid-stream", "error event; the group is replaced"),
    136: ("rank of a group hung", "unhealthy, the rank is named; the group is replaced"),
    137: ("rank hung while it loads", "ended after load_stall_timeout, the rank is named"),
    138: ("daemon killed while a rank is hung", "no rank is left"),
    139: ("machine of a group not reached", "failed at last, with the words of ssh"),
    140: ("other versions, no weights or no ports at a rank", "refused before it loads, with what to do"),
    141: ("ports of ranks taken", "the next ones, at all ranks"),
    142: ("ssh ends while a rank on another machine hangs", "the guard there kills it"),
    143: ("heads that do not divide by the ranks", "refused by the check and by each rank: no garbage"),
    144: ("clients of a group leave, others come at once", "no rank ends, each gets its own text"),
    145: ("drafts and cached prompts in a group", "the text of one machine, and of no drafting"),
    146: ("steps of caches at random", "all ranks have the same in them, and forget the same"),
    147: ("hostfile wrong", "refused with file, line, reason; nothing restarts"),
    150: (
        "a peer is gone",
        "left out at once; the request is answered elsewhere; back with its first answer",
    ),
    151: (
        "a peer breaks off before or in its answer",
        "an error that names it; never sent again, so never run twice",
    ),
    152: ("a peer that comes and goes", "asked less and less often; every request has an answer or a reason"),
    153: ("a peer is full, or its worker has failed", "the next machine; all full: 429 with when to come"),
    154: ("daemons that are each other's peers", "a request makes one hop at most; no model is listed twice"),
    155: ("a peer that refuses our key, or is this daemon", "left out, and why is said; no prompt is sent"),
    156: ("a peer without a key, a key in its address", "refused with file, line and reason; no key is told"),
    157: ("a client leaves what a peer answers", "the peer's worker is free < 1 s"),
    158: (
        "the daemon stops while peers answer",
        "`stopping`, in the stream too; nothing is cut short as if whole",
    ),
    159: ("a peer falls silent", "noticed after four of its keepalives; an error, and left out"),
    160: ("memory is short for everybody", "idle workers sleep, new loads wait; said where it stands"),
    161: (
        "models that must not be in memory together",
        "they are not; a pinned one's are refused, with the reason",
    ),
    162: ("the kernel kills a worker for memory", "told as such, with the restart"),
    163: ("a request comes while a prompt is read ahead", "that is given up, what was read of it kept"),
    170: ("a server's usage with strings, lists or lies", "counts, or 0: no answer is lost by it"),
    171: ("fields of any type in any place", "400 that says where, never 500"),
    172: (
        "tool calls that a server writes side by side",
        "one after the other, whole, where a dialect requires that",
    ),
    173: ("files and folders that may not be looked at", "reported, or taken as missing; nothing ends"),
    180: (
        "a large recording for a `command`",
        "passed on whole by way of a file; memory flat, nothing is left of it",
    ),
    181: (
        "strangers fill the network with announcements; one daemon is found and named",
        "none of them takes a name or a place; one is one peer, and this daemon none",
    ),
    182: (
        "our disk fails while an upload is passed to a peer",
        "507 for that request; the peer stays in use, and is not counted as having failed",
    ),
    183: (
        "a certificate is renewed, well or badly, while https is served",
        "the new one is used within seconds; with a bad one the old stays, and log, status and doctor say so",
    ),
    184: (
        "ranks that meet by MPI: mpirun is killed, fails, or is not there",
        "the group ends and starts again, nobody is left; refused in its words, or with what to install",
    ),
    185: (
        "a peer lies: no HTTP, endless or huge answers, control characters, other models each time",
        "left out for a reason in one line of our own words; nothing of it grows here",
    ),
    186: (
        "eight servers of others load at once, on a machine with thousands of connections",
        "nobody else waits",
    ),
    187: ("requests for models that are not in memory yet", "counted as waiting, and each sees its place"),
    192: ("a terminal becomes narrower while a table lives in it", "no remains; no line above it is lost"),
    196: ("a certificate that cannot serve https", "one sentence names the file and the fault; exit 2"),
    197: (
        "plain http, silence or garbage at a port of https",
        "400 that says so, or closed within its limit",
    ),
    198: (
        "a daemon with peers and no profile",
        "their models are served; `up`, status and clients say whose they are",
    ),
    199: (
        "a machine in the network announces itself",
        "used if its certificate is one of ours, until it is gone; a stranger is sent nothing",
    ),
    202: (
        "the number of a child that has ended is a stranger's",
        "neither a stranger nor the daemon is signalled",
    ),
    203: ("nobody reads the daemon's stderr, its disk is full, or it is closed", "it serves on"),
    204: ("the daemon crashes, or is killed", "the next one tells, and where it crashed; status too"),
    205: ("a signal that ends programs without a word", "the daemon stops in order, and names it"),
    206: (
        "a fault of ours in one of the daemon's own tasks",
        "logged; the task goes on, and so does the daemon",
    ),
    207: (
        "a tool call that is cut off, or names no tool",
        "text, as the model wrote it: no call with half of its arguments",
    ),
    208: (
        "caffeinate hangs, or cannot be started for a while",
        "the stop waits for nobody; it is tried again",
    ),
    209: ("an answer whose tokens came in one round", "no speed is told of it, and none is counted"),
    210: (
        "the daemon is held up for longer than its limits",
        "what has come by then is read before any limit ends it",
    ),
    211: (
        "a penalty that looks back at 0 tokens, a temperature of 1e-39",
        "no penalty, the likeliest token: drafted, batched or alone",
    ),
    212: (
        "an error between the turns of requests at work",
        "those that it is about end with it; the engine serves whoever comes later",
    ),
    213: (
        "a schema's fixed text where the cache is quantized (kv_bits)",
        "no pass goes beyond that place: each token sees what it sees without drafts",
    ),
    214: (
        "a schema that takes seconds to compile",
        "its own thread compiles it, once; the answers at work go on meanwhile",
    ),
    221: (
        "a profile of 5 TB, with a key of 20,000 parts, or a NUL in its command",
        "refused with file, line and reason; nothing waits for it",
    ),
    222: (
        "a schema that refers to itself without an end, or is nested too deeply",
        "400 with the reason before anything is answered; a tool that is not strict takes any object",
    ),
    223: (
        "fewer open files are allowed than mlx_lm asks for (`ulimit -n 1024`)",
        "workers start all the same, with what is allowed",
    ),
}


@dataclass
class Row:
    """What is known about one fault after the run."""

    measured: list[float] = field(default_factory=list)
    durations: list[float] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> str:
        """The worst that was measured; where nothing was, the longest test's duration in parentheses."""
        if self.measured:
            return f"{max(self.measured):7.3f} s "
        return f"({max(self.durations):6.3f} s)" if self.durations else "        – "

    @property
    def verdict(self) -> str:
        if not self.outcomes:
            return "no test ran"
        for worst in ("failed", "skipped"):
            if worst in self.outcomes:
                return worst
        return "pass"


ROWS = pytest.StashKey[dict[int, Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-faults", action="store_true", help="fail unless every fault has a test that passed"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "fault(number, ...): the test stands for these rows of the fault table"
    )
    config.stash[ROWS] = {number: Row() for number in FAULTS}
    config.pluginmanager.register(_Table(config.stash[ROWS]))


@pytest.fixture
def measured(record_property: Callable[[str, object], None]) -> Callable[[float], None]:
    """State the seconds that the table is to show for this test."""
    return lambda seconds: record_property("seconds", seconds)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report: pytest.TestReport = yield  # type: ignore[assignment]  # pytest's own way of wrapping
    numbers = {int(n) for marker in item.iter_markers("fault") for n in marker.args}
    report.user_properties += [("fault", number) for number in numbers]  # sent to the main process with it
    return report  # type: ignore[return-value]


class _Table:
    """Fills the rows from the reports of all processes."""

    def __init__(self, rows: dict[int, Row]) -> None:
        self._rows = rows

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        seconds = [float(str(value)) for key, value in report.user_properties if key == "seconds"]
        for number in [int(str(value)) for key, value in report.user_properties if key == "fault"]:
            row = self._rows[number]
            row.outcomes.append(report.outcome)
            row.durations.append(report.duration)
            row.measured += seconds


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash[ROWS]
    if not any(row.outcomes for row in rows.values()):
        return
    terminalreporter.section("faults")
    for number, (fault, outcome) in FAULTS.items():
        row = rows[number]
        terminalreporter.write_line(f"{number:>2}  {fault:<34} {outcome:<78} {row.seconds}  {row.verdict}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("--all-faults"):
        open_rows = [
            n for n, row in session.config.stash[ROWS].items() if row.verdict not in {"pass", "skipped"}
        ]
        if open_rows:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
