"""`tokenizer.json` held against the tokenizers of the supported families: known parts only, none that multiplies text.

Texts are scored by the thousand, so what a tokenizer does to one text must stay in proportion to the text. The parts
are those of the `tokenizers` library: https://huggingface.co/docs/tokenizers/api
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qe_edge.verification.expressions import EXPRESSIONS
from qe_edge.verification.files import MIB, read_bounded
from qe_edge.verification.refusal import refusal, shown
from qe_edge.verification.strict_json import parse_json

TOKENIZER_BYTES = 48 * MIB
CONTAINERS = 1_500_000
"""most lists and objects in the file; each merge of two tokens is one, and the largest tokenizers have 0.6 million"""
TOKENS = 1_000_000
"""most tokens, and one more than the largest id; Gemma has 262,144"""
PARTS_OF_A_SEQUENCE = 8
LONGEST_PIECE = 64
"""most characters of a text that a part looks for, puts in place or adds"""
LONGEST_TOKEN = 4096
"""most characters of an added token"""
LONGEST_WORD = 1000
"""most characters that WordPiece takes for a word; it needs time with the square of them"""

MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
SEQUENCES = MappingProxyType(
    {
        "normalizer": "normalizers",
        "pre_tokenizer": "pretokenizers",
        "post_processor": "processors",
        "decoder": "decoders",
    }
)
"""The steps of a tokenizer, and the name under which a Sequence of each has its parts."""
PARTS = MappingProxyType(
    {
        "normalizer": {"Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Prepend", "Replace", "Strip", "StripAccents"},
        "pre_tokenizer": {
            *("ByteLevel", "Digits", "Metaspace", "Punctuation", "Split", "UnicodeScripts"),
            *("Whitespace", "WhitespaceSplit"),
        },
        "post_processor": {"ByteLevel", "TemplateProcessing"},
        "decoder": {"BPEDecoder", "ByteFallback", "ByteLevel", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece"},
    }
)
"""Types of parts of each step. Precompiled is missing: its table may turn one character into any text."""
Part = dict[str, Any]


def check_tokenizer(path: Path) -> str:
    """Verify a tokenizer file; what was found, in a line.

    Raises BundleError for anything that the tokenizers of the supported families do not have (docs/bundle.md).
    """
    content = parse_json(read_bounded(path, TOKENIZER_BYTES), path, CONTAINERS)
    if not isinstance(content, dict):
        raise refusal(path, "a JSON object is expected")
    tokens, added = _check_model(content.get("model"), path), _check_added_tokens(content.get("added_tokens"), path)
    if tokens + added > TOKENS:
        raise refusal(path, f"has {tokens + added} tokens, more than {TOKENS}")
    names = []
    for step in SEQUENCES:
        for part in _parts(content.get(step), step, path):
            _check_part(part, step, path)
            names.append(part["type"])
    kind, parts = content["model"]["type"], ", ".join(dict.fromkeys(names)) or "none"
    return f"{kind} with {tokens} tokens and {added} added ones; parts: {parts}"


def _check_model(model: Any, path: Path) -> int:
    """The number of tokens of a model that is as it should be."""
    kind = model.get("type") if isinstance(model, dict) else None
    if kind not in MODELS:
        raise refusal(path, f"model type {shown(kind)}, known are {', '.join(MODELS)}")
    if model.get("dropout"):
        raise refusal(path, f"dropout {shown(model['dropout'])}: a text would be tokenised otherwise each time")
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        _check_piece(model.get(name) or "", f"`{name}`", path)
    longest = model.get("max_input_chars_per_word", 0)
    if type(longest) is not int or not 0 <= longest <= LONGEST_WORD:
        raise refusal(path, f"`max_input_chars_per_word` is {shown(longest)}, more than {LONGEST_WORD}")
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, list if kind == "Unigram" else dict):
        raise refusal(path, f"`vocab` of a {kind} model is {shown(vocabulary)}")
    if isinstance(vocabulary, dict):
        _check_ids(vocabulary.values(), path)
    return len(vocabulary)


def _check_added_tokens(tokens: Any, path: Path) -> int:
    """The number of tokens that stand beside the model's."""
    if tokens is None:
        return 0
    if not isinstance(tokens, list) or not all(isinstance(token, dict) for token in tokens):
        raise refusal(path, "`added_tokens` is no list of objects")
    _check_ids((token.get("id") for token in tokens), path)
    for token in tokens:
        content = token.get("content")
        if not isinstance(content, str) or not 0 < len(content) <= LONGEST_TOKEN:
            raise refusal(path, f"added token {shown(content)} is no text of 1 to {LONGEST_TOKEN} characters")
    return len(tokens)


def _check_ids(ids: Iterable[Any], path: Path) -> None:
    for number in ids:
        if type(number) is not int or not 0 <= number < TOKENS:
            raise refusal(path, f"token id {shown(number)} is not from 0 to {TOKENS - 1}")


def _parts(value: Any, step: str, path: Path) -> list[Part]:
    """The parts of a step: none, the one there is, or those of a sequence."""
    parts: Any = [] if value is None else [value]
    if isinstance(value, dict) and value.get("type") == "Sequence":
        parts = value.get(SEQUENCES[step])
        if not isinstance(parts, list) or len(parts) > PARTS_OF_A_SEQUENCE:
            raise refusal(path, f"`{step}` is no sequence of at most {PARTS_OF_A_SEQUENCE} parts")
    for part in parts:
        # Without a type the library would guess it from the other fields.
        kind = part.get("type") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in PARTS[step]:
            raise refusal(path, f"`{step}` has the type {shown(kind)}, known are {', '.join(sorted(PARTS[step]))}")
    # ByteLevel makes two characters of most that are not ASCII, so that n of them make 2^n.
    if sum(part["type"] == "ByteLevel" for part in parts) > 1:
        raise refusal(path, f"`{step}` has ByteLevel more than once")
    return list(parts)


def _check_part(part: Part, step: str, path: Path) -> None:
    where = f"`{step}` {part['type']}"
    if part["type"] in ("Split", "Replace"):
        sought = _check_pattern(part.get("pattern"), where, path)
        if step == "normalizer":
            content = part.get("content")
            # As many characters as were there, or fewer: any number of replacements makes no text longer.
            if sought is None or not isinstance(content, str) or len(content) > len(sought):
                raise refusal(path, f"{where} puts {shown(content)} for {shown(part['pattern'])}: it may be no longer")
    elif part["type"] == "Prepend":
        _check_piece(part.get("prepend"), where, path)
    elif part["type"] == "TemplateProcessing":
        _check_template(part.get("single"), where, path)


def _check_pattern(pattern: Any, where: str, path: Path) -> str | None:
    """The text that a part looks for; None where it is a known regular expression."""
    if isinstance(pattern, dict) and len(pattern) == 1:
        kind, value = next(iter(pattern.items()))
        if kind == "String" and value:
            return _check_piece(value, where, path)
        if kind == "Regex" and value in EXPRESSIONS.values():
            return None
    raise refusal(
        path, f"{where} looks for {shown(pattern)}: only a text and the expressions of known tokenizers may be"
    )


def _check_piece(text: Any, where: str, path: Path) -> str:
    if not isinstance(text, str) or len(text) > LONGEST_PIECE:
        raise refusal(path, f"{where} has {shown(text)}, which is no text of at most {LONGEST_PIECE} characters")
    return text


def _check_template(template: Any, where: str, path: Path) -> None:
    """A template says what stands around a text; one that names the text n times makes n copies of it."""
    pieces = template if isinstance(template, list) and all(isinstance(piece, dict) for piece in template) else []
    if sum("Sequence" in piece for piece in pieces) != 1:
        raise refusal(path, f"{where} does not hold the text once: {shown(template)}")
