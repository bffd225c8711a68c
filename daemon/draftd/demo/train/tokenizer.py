"""Trains the byte-level BPE tokenizer that both models share, and writes its files."""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from draftd.demo.train import corpus, junk

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MARKS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<tools>", "</tools>")
# Punctuation may be glued to the word after it, so that `","description` or `":{"type` is one token:
# tool definitions in JSON are the longest thing that clients send.
PIECES = r" ?[^\s\p{L}\p{N}]*\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string %}{{- content }}
{%- elif content %}{%- for part in content %}{{- part.text if part.text is defined else '' }}{%- endfor %}
{%- endif %}
{%- endmacro -%}
{%- set first = messages[0].role == 'system' if messages else false -%}
{%- set system = text(messages[0].content) if first else '' -%}
{%- if tools or system %}
{{- '<|im_start|>system\\n' + system }}
{%- if tools %}
{{- ('\\n\\n' if system else '') + '# Tools\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' + tool | tojson(separators=(',', ':')) }}{%- endfor %}
{{- '\\n</tools>' }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in (messages[1:] if first else messages) %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' + text(message.content) }}
{%- for tool_call in message.tool_calls or [] %}
{%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\\n' if text(message.content) or not loop.first }}
{{- '<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' }}
{{- tool_call.arguments if tool_call.arguments is string else tool_call.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{{- '<|im_start|>user\\n<tool_response>\\n' + text(message.content) + '\\n</tool_response><|im_end|>\\n' }}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + text(message.content) + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def texts(seed: int) -> Iterator[str]:
    """The corpus a few times over, all doc strings, licences and tool definitions once."""
    rng = random.Random(seed)
    for _ in range(300):
        yield "".join(piece for piece, _ in corpus.render(corpus.Chat(corpus.turns_of(rng, 2))))
    yield from junk.paragraphs()
    yield from junk.tools()


def train(vocab_size: int, seed: int) -> Tokenizer:
    """Train the tokenizer; the vocabulary holds the special tokens, all bytes and the merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = [*(AddedToken(t, special=True, normalized=False) for t in SPECIAL)]
    added += [AddedToken(t, special=False, normalized=False) for t in MARKS]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=added,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(seed), trainer)
    return tokenizer


def config() -> dict[str, object]:
    """Contents of `tokenizer_config.json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 32768,
        "chat_template": TEMPLATE,
    }


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the two tokenizer files in compact form."""
    folder.mkdir(parents=True, exist_ok=True)
    state = json.loads(tokenizer.to_str())
    compact = json.dumps(state, ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config(), indent=1) + "\n")
