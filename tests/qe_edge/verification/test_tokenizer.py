"""Tokenizers of the supported families pass; what makes a text long or slow, or is unknown, is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from qe_edge.bundle import EMBEDDED_BUNDLE, open_bundle
from qe_edge.verification.expressions import EXPRESSIONS
from qe_edge.verification.tokenizer import check_tokenizer
from tests.qe_edge.verification.conftest import Refused, Rewrite

REMEDY = "; qe-edge export writes no such bundle: export it again or fetch a fresh copy"


def byte_level(expression: str | None) -> pre_tokenizers.PreTokenizer:
    """How GPT-2 cuts texts (no expression), and all that have an expression of their own."""
    if expression is None:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    cut = pre_tokenizers.Split(Regex(expression), "isolated")
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def template(bos: str) -> processors.PostProcessor:
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B:1", special_tokens=[(bos, 0)])


def sentencepiece(tokenizer: Tokenizer) -> None:
    """Llama 2, Mistral 7B and Phi-3."""
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = template("<s>")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )


def metaspace(tokenizer: Tokenizer) -> None:
    """Llama 2 and Mistral, as newer versions of transformers write them."""
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()


def llama_3(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = byte_level(EXPRESSIONS["Llama 3"])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template("<s>")])
    tokenizer.decoder = decoders.ByteLevel()


def qwen(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = byte_level(EXPRESSIONS["Qwen2 and Qwen3"])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.decoder = decoders.ByteLevel()


def gemma(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = template("<s>")


def cohere(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.NFC()
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level(None)])
    tokenizer.post_processor = template("<s>")


def nemo(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = byte_level(EXPRESSIONS["Mistral Tekken"])


@pytest.mark.parametrize("family", [sentencepiece, metaspace, llama_3, qwen, gemma, cohere, nemo])
def test_tokenizers_of_the_supported_families_are_accepted(tmp_path: Path, family: Any) -> None:
    vocabulary = {"<s>": 0, "a": 1, "b": 2, "ab": 3}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("a", "b")]))
    tokenizer.add_tokens([AddedToken("<|im_start|>", special=True), AddedToken("\n" * 31)])
    family(tokenizer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    assert check_tokenizer(tmp_path / "tokenizer.json").startswith("BPE with 4 tokens and 2 added ones; parts: ")


def test_the_embedded_tokenizer_is_accepted() -> None:
    found = check_tokenizer(EMBEDDED_BUNDLE / "tokenizer.json")

    assert found == "BPE with 49152 tokens and 17 added ones; parts: ByteLevel, TemplateProcessing"


def model(**changes: Any) -> dict[str, Any]:
    return {"model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"} | changes}


def normalizer(**part: Any) -> dict[str, Any]:
    return {"normalizer": part}


def split(pattern: Any) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}}


def added(**token: Any) -> dict[str, Any]:
    return {"added_tokens": [{"id": 1, "content": "a"} | token]}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (model(type="Evil"), "model type 'Evil', known are BPE, Unigram, WordLevel, WordPiece"),
        ({"model": {"vocab": {}}}, "model type None, known are"),
        ({"model": []}, "model type None, known are"),
        (model(vocab=["?"]), "`vocab` of a WordLevel model is ['?']"),
        (model(vocab={"?": 1_000_000}), "token id 1000000 is not from 0 to 999999"),
        (model(vocab={"?": -1}), "token id -1 is not"),
        (model(vocab={"?": True}), "token id True is not"),
        (model(vocab={"?": "0"}), "token id '0' is not"),
        (model(type="BPE", dropout=0.1), "dropout 0.1: a text would be tokenised otherwise each time"),
        (model(type="BPE", continuing_subword_prefix="#" * 65), "`continuing_subword_prefix` has '####"),
        (model(type="WordPiece", max_input_chars_per_word=10**6), "`max_input_chars_per_word` is 1000000, more than"),
        (normalizer(type="Replace", pattern={"String": "a"}, content="aa"), "puts 'aa' for {'String': 'a'}: it may be"),
        (normalizer(type="Replace", pattern={"String": ""}, content="a"), "looks for {'String': ''}: only a text"),
        (normalizer(type="Replace", pattern={"Regex": "a*"}, content=""), "looks for {'Regex': 'a*'}: only a text"),
        (
            normalizer(type="Replace", pattern={"Regex": EXPRESSIONS["GPT-2"]}, content="a"),
            "it may be no longer",
        ),
        (normalizer(pattern={"String": "a"}, content="aaaa"), "`normalizer` has the type None, known are Lowercase"),
        (normalizer(type="Prepend", prepend="a" * 65), "`normalizer` Prepend has 'aaa"),
        (normalizer(type="Precompiled", precompiled_charsmap=""), "`normalizer` has the type 'Precompiled'"),
        (normalizer(type="Sequence", normalizers=[{"type": "NFC"}] * 9), "is no sequence of at most 8 parts"),
        (
            normalizer(type="Sequence", normalizers=[{"type": "Sequence", "normalizers": []}]),
            "`normalizer` has the type 'Sequence'",
        ),
        (normalizer(type=["NFC"]), "`normalizer` has the type ['NFC']"),
        ({"normalizer": "NFC"}, "`normalizer` has the type None"),
        (split({"Regex": "(a+)+$"}), "looks for {'Regex': '(a+)+$'}: only a text and the expressions of known"),
        (split({"Regex": "(((a{1000}){1000}){1000})"}), "only a text and the expressions of known"),
        (split({"Regex": ["a"]}), "only a text and the expressions of known"),
        (split("a"), "only a text and the expressions of known"),
        (split({"String": "a" * 65}), "which is no text of at most 64 characters"),
        ({"pre_tokenizer": {"type": "FixedLength", "length": 0}}, "`pre_tokenizer` has the type 'FixedLength'"),
        (
            {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL] * 8}},
            "`pre_tokenizer` has ByteLevel more than once",
        ),
        (
            {"decoder": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
            "`decoder` Replace looks for",
        ),
        (
            {
                "post_processor": {
                    "type": "TemplateProcessing",
                    "single": [TEXT, TEXT],
                    "pair": [],
                    "special_tokens": {},
                }
            },
            "`post_processor` TemplateProcessing does not hold the text once",
        ),
        ({"post_processor": {"type": "RobertaProcessing"}}, "`post_processor` has the type 'RobertaProcessing'"),
        (added(id=2**32 - 1), "token id 4294967295 is not"),
        (added(content=""), "added token '' is no text of 1 to 4096 characters"),
        (added(content="a" * 5000), "is no text of 1 to 4096 characters"),
        ({"added_tokens": {}}, "`added_tokens` is no list of objects"),
        ({"added_tokens": ["a"]}, "`added_tokens` is no list of objects"),
    ],
)
def test_what_no_supported_tokenizer_has_is_refused(
    with_tokenizer: Rewrite, refused: Refused, changes: dict[str, Any], expected: str
) -> None:
    line = refused(with_tokenizer(**changes))

    assert line.startswith("tokenizer.json: ")
    assert expected in line
    assert line.endswith(REMEDY)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not valid JSON ("),
        (b"[]", "a JSON object is expected"),
        (b'{"model": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"model": ' + b"[" * 1_600_000, "more than 1500000 lists and objects"),
        (b'{"model": NaN}', "not valid JSON (NaN is not a number)"),
        (b'{"model": 1' + b"0" * 10_000 + b"}", "not valid JSON ("),
        (b'{"model": {}, "model": {}}', "not valid JSON (name 'model' is written twice)"),
        ('{"model": {}}'.encode("utf-16"), "not valid JSON ("),
        (b'{"model": "\xff"}', "not valid JSON ("),
        (b" " * (49 << 20), "larger than 48 MiB"),
    ],
)
def test_json_that_is_made_to_exhaust_or_to_mislead_is_refused(
    with_file: Rewrite, refused: Refused, content: bytes, expected: str
) -> None:
    assert refused(with_file("tokenizer.json", content)).startswith(f"tokenizer.json: {expected}")


def test_too_many_tokens_are_refused(
    with_tokenizer: Rewrite, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qe_edge.verification.tokenizer.TOKENS", 1000)
    folder = with_tokenizer(**model(vocab={str(i): i for i in range(1000)}), **added(id=999))

    assert "has 1001 tokens, more than 1000" in refused(folder)


def test_a_replacement_of_the_same_length_is_accepted(with_tokenizer: Rewrite) -> None:
    open_bundle(with_tokenizer(**normalizer(type="Replace", pattern={"String": "``"}, content='"')))


def test_an_error_never_shows_more_than_a_little_of_a_file(with_tokenizer: Rewrite, refused: Refused) -> None:
    line = refused(with_tokenizer(**model(type="\x1b[2J\n" * 10_000)))

    assert len(json.dumps(line)) < 500
