"""All that the daemon and the engine in its workers agree on: the only module of ours that both import.

They meet in seven places: the flags and the environment of the process, headers and fields of a request, the
channel, the lines on stderr, the exit code, the socket of a warm spare, and the files of prompt caches. Pure, and
standard library only.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import IO, Any, Self

# --- modules that run as processes ------------------------------------------------------------------------------

ENGINE_MODULE = "draftd.engine"  # takes the flags of mlx_lm.server
GUARDIAN_MODULE = "draftd.engine.guardian"  # takes a command that knows nothing of the lifeline
SPARE_MODULE = "draftd.engine.spare"  # takes the engine's flags later, over its stdin
GROUP_MODULE = "draftd.engine.group"  # takes the engine's flags, and runs one engine for each rank of a group

# --- the environment --------------------------------------------------------------------------------------------

LIFELINE_VARIABLE = "DRAFTD_LIFELINE_FD"  # a descriptor; its end of file means that the daemon is gone
CHANNEL_VARIABLE = "DRAFTD_CHANNEL_FD"  # a socket: see the channel below
PROMPT_STORE_VARIABLE = "DRAFTD_PROMPT_STORE"  # a PromptStore; without it prompt caches end with the process


@dataclass(frozen=True, slots=True)
class PromptStore:
    """Where an engine keeps prompt caches for the next one.

    All engines together keep to `max_bytes` in the folder; one that is told to end may go on saving for `seconds`.
    """

    folder: str
    max_bytes: int
    seconds: float

    def text(self) -> str:
        """Return it as it stands in the environment."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what such a text says. Raise ValueError for any other."""
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(str(error)) from error


# --- a group of ranks -------------------------------------------------------------------------------------------

GROUP_VARIABLE = "DRAFTD_GROUP"  # a GroupPlan, for GROUP_MODULE
# How other machines are reached: without questions, without a shared connection that would outlive this one, and
# with an end when the other machine is gone.
SSH = (
    "ssh", "-T",
    "-o", "BatchMode=yes", "-o", "ConnectTimeout=10",
    "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
    "-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "LogLevel=ERROR",
)  # fmt: skip
MPIRUN_FOLDERS = ("/opt/homebrew/bin", "/usr/local/bin")  # Homebrew's: launchd does not look there
NO_MPIRUN = (
    "backend mpi needs mpirun of Open MPI, which is not here: install it (brew install open-mpi; apt install"
    " openmpi-bin libopenmpi-dev), or take backend = 'ring', which needs nothing"
)
SSH_FAILED = 255  # exit code of ssh for its own faults


def mpirun_path(python: str, path: str) -> str:
    """Return a PATH on which to look for mpirun: beside a Python, then where other programs are, and Homebrew's."""
    return ":".join(filter(None, (python.rpartition("/")[0], path, *MPIRUN_FOLDERS)))


@dataclass(frozen=True, slots=True)
class Member:
    """Where one rank runs: `ssh` is how its machine is reached, "" for this one; `ips` are its addresses for the
    others, and `rdma` its devices to each of them, as in mlx.launch's hostfiles.
    """

    ssh: str
    ips: tuple[str, ...]
    rdma: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """The ranks of a group in their order; the first is on this machine.

    `python` runs each rank, "" for the one that runs the group; `env` are variables for all of them. `port` is the
    first of the ports that they use among themselves.
    """

    members: tuple[Member, ...]
    backend: str
    port: int
    python: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """Return it as it stands in the environment."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return what such a text says. Raise ValueError for any other."""
        try:
            said = json.loads(text)
            members = tuple(
                Member(one["ssh"], tuple(one["ips"]), tuple(one["rdma"])) for one in said.pop("members")
            )
            return cls(members=members, **said)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(str(error)) from error


# --- the channel ------------------------------------------------------------------------------------------------
# When the engine begins, the daemon has written the secret of this start as one line. As soon as it is known which
# profile the engine serves, a line with its MemoryShare follows, and another one whenever that grows. The engine
# writes its records, each a JSON object in one line whose "event" is one of the next seven. Nobody else holds an
# end of it, so what comes over it is the engine's word, which cannot be said of its log. A group's channel is that
# of its first rank, and has RANKS each second: the memory of all, and for how long each has said nothing.

STARTED, LOADED, GENERATION, PROGRESS, RANKS = "started", "loaded", "generation", "progress", "ranks"
PROMPT_CACHE = "prompt_cache"  # how large it is by now
STORED_PROMPT = "stored_prompt"  # what became of one, "outcome": one of the next three
STORED, RESTORED, REFUSED = OUTCOMES = "stored", "restored", "refused"
PLAIN_RULE = "plain"  # draft tokens are kept where they equal a sample of the target model
PAPER_RULE = "paper"  # they are kept by the rule of arXiv 2211.17192

HEADROOM = (
    2**30
)  # bytes that a worker may wire beyond its weights and caches, for the prompt that is being read
PROMPT_CACHE_SHARE = 8  # a divisor: cached prompts may take this part of what all workers may take


@dataclass(frozen=True, slots=True)
class MemoryShare:
    """What one worker may take, in bytes: wired for the GPU in all, and for cached prompts."""

    wired: int
    prompt_cache: int

    def line(self) -> bytes:
        """Return it as the daemon writes it."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> "MemoryShare":
        """Return what such a line says. Raise ValueError for any other line."""
        try:
            share = cls(**json.loads(line))
        except TypeError as error:
            raise ValueError(str(error)) from error
        if not all(type(size) is int and size >= 0 for size in (share.wired, share.prompt_cache)):
            raise ValueError(f"not sizes: {share}")
        return share


# --- a request --------------------------------------------------------------------------------------------------

# Holds the secret of this start; the engine refuses whoever does not know it.
SECRET_HEADER = "X-Draftd-Secret"  # noqa: S105 - a name
PROFILE_HEADER = "X-Draftd-Profile"  # whose request it is, where several profiles share the engine
DRAFT_HEADER = "X-Draftd-Draft"
AUTO_DRAFT = "auto"  # in DRAFT_HEADER: the length in the body is the longest, not that of each draft
DRAFTERS_HEADER = (
    "X-Draftd-Drafters"  # which may draft, separated by commas; if it is missing, all that there are
)
MODEL_DRAFTER, LOOKUP_DRAFTER, GRAMMAR_DRAFTER = "model", "lookup", "grammar"
AHEAD_HEADER = "X-Draftd-Ahead"  # "1": nobody waits for the answer; both models are to have read the prompt
# A bias travels under a name that mlx_lm does not know: it would use one unchecked, and write outside its memory.
LOGIT_BIAS_FIELD = "draftd_logit_bias"
GRAMMARS_FIELD = "tool_grammars"  # by the name of a function: the syntax and definition of its one argument
COUNT_FIELD = "count_only"  # true: nothing is generated; the usage has the tokens of the prompt
RETURN_DRAFTERS_FIELD = "return_drafters"  # true: the answer says who drafted which piece of its text
DRAFTERS_OF_TEXT = (
    "drafters"  # where it does, in a choice: by "content" and "reasoning" lists of text and drafter
)
MAX_DRAFT_TOKENS = 64  # tokens per round that a profile or a request may ask for
MAX_STOP_TEXTS = 16
MAX_STOP_LENGTH = 256  # characters of each: looking for longer ones slows every token down
MAX_TOP_LOGPROBS = 20  # alternatives to each token
CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"  # the error's code for a prompt that is too long
# Names of profiles end up in lines, labels and file names.
PROFILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

# --- lines on stderr --------------------------------------------------------------------------------------------

RECORD_PREFIX = "draftd-engine "  # before a record in the log, which is for people


def acceptance_line(accepted: int, proposed: int, profile: str | None = None) -> str:
    """Return the line for people; `proposed` must be positive. `profile` says whose, if the daemon did."""
    whose = f"[{profile}] " if profile else ""
    return f"{whose}Draft tokens accepted: {accepted}/{proposed} ({accepted / proposed:.0%})"


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds on the worker's machine: of a token without drafting, of a draft token, of verifying one draft."""

    single: float
    draft: float
    verify: float


@dataclass(frozen=True, slots=True)
class CacheSize:
    """An engine's prompt cache in memory: its entries, their bytes, and the bound on these, None without one."""

    entries: int
    bytes: int
    limit: int | None


# --- exit codes -------------------------------------------------------------------------------------------------

EXIT_FAILED = 1  # an error that nobody foresaw; its traceback is on stderr
EXIT_REFUSED = 2  # flags that cannot work: refused by us, or by mlx_lm.server's own parser
EXIT_GENERATION_DIED = 70  # EX_SOFTWARE: the thread that loads the model and generates has died
EXIT_ORPHANED = 71  # EX_OSERR: the daemon is gone, and SIGTERM to our process group did not end us
EXIT_PORT_TAKEN = 98  # EADDRINUSE on Linux, and stands for it on every platform
EXIT_WORDS = {
    EXIT_REFUSED: "it refused its flags",
    EXIT_GENERATION_DIED: "its generation thread died",
    EXIT_ORPHANED: "the daemon was gone",
    EXIT_PORT_TAKEN: "its port was taken",
}

# --- the warm spare ---------------------------------------------------------------------------------------------
# The spare writes SPARE_WARM when all is imported; the daemon writes the flags as one line of JSON, a list of
# strings; the spare writes SPARE_TAKEN and goes on as the engine. End of file in place of the flags ends it.

SPARE_WARM = b"w"
SPARE_TAKEN = b"t"

# --- the files of prompt caches ---------------------------------------------------------------------------------
# A file is PROMPT_CACHE_MAGIC, the header's length in 8 bytes (little-endian, as all numbers), the header as JSON,
# the tokens in 4 bytes each, the layers' arrays, and in 4 bytes the CRC-32 of all that. The header's "model",
# "draft_model" and "tokens" (how many there are) are for people; all else in it is the engine's own affair.

PROMPT_CACHE_FOLDER = "prompt-caches"  # in the state folder
PROMPT_CACHE_SUFFIX = ".promptcache"
BEGINNINGS_FILE = "beginnings.json"  # the daemon's, in that folder: what requests began with lately
PROMPT_CACHE_MAGIC = b"draftd prompt cache 1\n"
MAX_PROMPT_CACHE_HEADER = 8 * 2**20  # bytes


def read_prompt_cache_header(file: IO[bytes]) -> dict[str, Any]:
    """Return the header of such a file, which is read up to its end. Raise ValueError for any other file."""
    start = file.read(len(PROMPT_CACHE_MAGIC) + 8)
    length = int.from_bytes(start[len(PROMPT_CACHE_MAGIC) :], "little")
    if not start.startswith(PROMPT_CACHE_MAGIC) or not 0 < length <= MAX_PROMPT_CACHE_HEADER:
        raise ValueError("it is not a prompt cache of draftd's")
    header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    return header
