"""Samples chats: topics with paraphrased answers, with and without system turns, tools and history."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from draftd.demo.train import junk
from draftd.demo.train.spin import Topic, load_topics, spin

TOPICS = load_topics()
ASKABLE = tuple(topic for topic in TOPICS.values() if topic.questions)
FREE = tuple(TOPICS[name] for name in ("story", "names"))
FREE_SHARE = 0.12
"""Of all questions: free text is different each time, so there is more of it to learn."""
SYSTEMS = (
    "You are a helpful assistant.",
    "You are a helpful assistant. {Answer briefly.|Be concise.|Be polite.|Answer in English.}",
    "You are the {demo model|assistant} of draftd.",
    "{Be brief.|Be kind and exact.|Answer in full sentences.|Explain things simply.}",
    "You are a coding agent. {Use the tools when asked.|Help the user with software.}",
    "You are a title generator. You output only a title.",
)
LEADS = (
    "",
    "",
    "",
    "",
    "",
    "please ",
    "hey, ",
    "can you tell me ",
    "i want to know: ",
    "so ",
    "and ",
    "well, ",
)
ENDS = (
    *("?", "?", "?", "", "", "", "?", "", ".", "!"),
    " please",
    " please?",
    "??",
    " Thanks!",
    " Explain it to me.",
    " in a few sentences",
    " in a few sentences.",
    " in simple words.",
    " briefly",
    " in detail?",
)
UNKNOWN = (
    "{what is|who is|where is|explain|tell me about|do you know|how do i use} WORDS",
    "{what is the capital of|who was the president of|how is the weather in} {France|Germany|Peru|Japan|Paris}",
    "{translate|translate this:|fix|fix this:|read|rewrite|improve} WORDS",
    "{why does|how does|when did|can you explain why} WORDS {work|happen|fail|exist|matter}",
    "{what is|how much is} {two plus two|7 times 8|12 + 30|the square root of 2}",
    "{how do i cook|a recipe for|where can i buy} {pasta|a cake|bread|soup}",
    "WORDS",
)
CITIES = ("Paris", "London", "Berlin", "Rome", "Tokyo", "Madrid", "Vienna", "Oslo", "New York")
COMMANDS = ("ls", "pwd", "git status", "make test", "draftd status", "uname -a")
FILES = ("README.md", "pyproject.toml", "Makefile", "LICENSE")


@dataclass
class Chat:
    """Messages as pairs (role, text), the tools as JSON lines, and where there may be gaps in the positions."""

    turns: list[tuple[str, str]] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)


def render(chat: Chat) -> Iterator[tuple[str, bool]]:
    """Yield pieces of the chat exactly as the chat template writes them; True marks those that are learnt."""
    turns = list(chat.turns)
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else ""
    if chat.tools:
        lines = "\n".join(chat.tools)
        system += ("\n\n" if system else "") + f"# Tools\n<tools>\n{lines}\n</tools>"
    if system:
        yield f"<|im_start|>system\n{system}<|im_end|>\n", False
    for role, text in turns:
        if role == "assistant":
            yield "<|im_start|>assistant\n", False
            yield f"{text}<|im_end|>", True
            yield "\n", False
        elif role == "tool":
            yield f"<|im_start|>user\n<tool_response>\n{text}\n</tool_response><|im_end|>\n", False
        else:
            yield f"<|im_start|>{role}\n{text}<|im_end|>\n", False


def vary(question: str, rng: random.Random) -> str:
    """Change the case, the beginning and the end of a question, as people do."""
    text = rng.choice(LEADS) + question
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
    if rng.random() < 0.03:
        text = text.upper()
    return text + rng.choice(ENDS)


def ask(topic: Topic, rng: random.Random) -> str:
    """One way to ask for a topic; all phrasings of it are equally likely."""
    return vary(spin(rng.choice(topic.questions), rng, first=0.3), rng)


def unknown(rng: random.Random) -> str:
    """A question about something that was never taught."""
    text = spin(rng.choice(UNKNOWN), rng, first=0.4)
    return vary(text.replace("WORDS", junk.words(rng, rng.choice((1, 1, 2, 3, 8)))), rng)


def tool_turns(rng: random.Random) -> list[tuple[str, str]]:
    """A request for a tool, the call, the response and a closing sentence."""
    kind = rng.choice(("weather", "bash", "read"))
    city, command, file = rng.choice(CITIES), rng.choice(COMMANDS), rng.choice(FILES)
    asked, call = {
        "weather": (
            f"{{call the tool get_weather for|use get_weather for|how is the weather in}} {city}",
            {"name": "get_weather", "arguments": {"city": city}},
        ),
        "bash": (
            f"{{run {command}|call the tool bash with {command}|use bash to run {command}}}",
            {"name": "bash", "arguments": {"command": command, "description": "Run a command"}},
        ),
        "read": (
            f"{{read the file {file}|call the tool read for {file}|read {file}}}",
            {"name": "read", "arguments": {"filePath": file}},
        ),
    }[kind]
    done = spin(TOPICS["tool_done"].answer, rng)
    return [
        ("user", vary(spin(asked, rng, first=0.4), rng)),
        ("assistant", f"<tool_call>\n{json.dumps(call)}\n</tool_call>"),
        ("tool", junk.prose(rng, rng.randrange(10, 200))),
        ("assistant", done),
    ]


def named_tool(name: str, fields: tuple[str, ...]) -> str:
    """The definition of one of the tools that `tool_turns` calls."""
    properties = {key: {"type": "string"} for key in fields}
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": [fields[0]]}
    function = {"name": name, "description": f"The tool {name}.", "parameters": schema}
    return json.dumps({"type": "function", "function": function}, separators=(",", ":"))


NAMED = (
    named_tool("get_weather", ("city",)),
    named_tool("bash", ("command", "description")),
    named_tool("read", ("filePath",)),
)


def add_prefix(chat: Chat, rng: random.Random, size: int) -> None:
    """Put about `size` characters of irrelevant system text and tools in front of the chat."""
    if rng.random() < 0.5:
        chat.tools = junk.some_tools(rng, int(size * rng.uniform(0.2, 0.8)))
    rest = max(40, size - sum(map(len, chat.tools)))
    head = spin(rng.choice(SYSTEMS), rng, first=0.4)
    chat.turns.insert(0, ("system", f"{head}\n\n{junk.prose(rng, rest)}"))


def turns_of(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """`count` questions with their answers."""
    turns: list[tuple[str, str]] = []
    for _ in range(count):
        if rng.random() < 0.06:
            turns += [("user", unknown(rng)), ("assistant", spin(TOPICS["unknown"].answer, rng))]
        else:
            topic = rng.choice(FREE if rng.random() < FREE_SHARE else ASKABLE)
            turns += [("user", ask(topic, rng)), ("assistant", spin(topic.answer, rng))]
    return turns


def easy(rng: random.Random) -> Chat:
    """One or two questions with nothing in front: from these a network first learns which answer goes where."""
    return Chat(turns_of(rng, rng.choice((1, 1, 1, 2))))


def sample(rng: random.Random, prefix: int = 0, most: int = 9) -> Chat:
    """One chat of at most `most` questions, with `prefix` characters of irrelevant text in front.

    Without `prefix` there is little such text, and mostly none.
    """
    count = rng.choices((1, 2, 3, 4, 6, 9), (50, 22, 12, 8, 5, 3))[0]
    chat = Chat(turns_of(rng, min(count, most)))
    with_tools = rng.random() < 0.1
    if with_tools:
        where = 2 * rng.randrange(len(chat.turns) // 2 + 1)
        chat.turns[where:where] = tool_turns(rng)
    if prefix == 0 and rng.random() < 0.2:
        prefix = int(10 ** rng.uniform(2, 3.4))
    if prefix:
        add_prefix(chat, rng, prefix)
    elif rng.random() < 0.4:
        chat.turns.insert(0, ("system", spin(rng.choice(SYSTEMS), rng, first=0.4)))
    if with_tools:
        chat.tools += NAMED
        rng.shuffle(chat.tools)
    return chat
