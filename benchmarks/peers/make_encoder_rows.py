"""Token ids of the rows as XLM-RoBERTa reads two texts: <s> source </s></s> translation </s>.

XLM-RoBERTa's tokenizer cannot be had without a model hub, but llama.cpp's source archive holds the vocabulary of a
model that uses the same one (nomic-embed-text-v2-moe); prepare.sh takes it from there.

    python -m benchmarks.peers.make_encoder_rows
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import llama_cpp  # type: ignore[import-not-found]  # in its environment only

from benchmarks.peers.harness import ENCODER_FILE, ROWS_FILE, WORK

VOCABULARY_FILE = "ggml-vocab-nomic-bert-moe.gguf"
BOS, EOS = 0, 2
LONGEST = 512
"""Most tokens that the encoder takes."""


def tokenise(vocabulary: Any, text: str) -> list[int]:
    """Token ids of a text, without special ones."""
    encoded = text.encode()
    ids = (llama_cpp.llama_token * (len(encoded) + 2))()
    count = llama_cpp.llama_tokenize(vocabulary, encoded, len(encoded), ids, len(ids), False, False)
    if count < 0:
        raise RuntimeError(f"{text[:50]!r}: llama.cpp cannot tokenise it")
    return list(ids[:count])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=WORK)
    work = parser.parse_args().work
    parameters = llama_cpp.llama_model_default_params()
    parameters.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(work / VOCABULARY_FILE).encode(), parameters)
    if not model:
        raise RuntimeError(f"{work / VOCABULARY_FILE}: llama.cpp cannot load it; run prepare.sh")
    vocabulary = llama_cpp.llama_model_get_vocab(model)
    prompts = []
    for source, translation in json.loads((work / ROWS_FILE).read_text(encoding="utf-8"))["texts"]:
        pair = [BOS, *tokenise(vocabulary, source), EOS, EOS, *tokenise(vocabulary, translation), EOS]
        prompts.append(pair[:LONGEST])
    (work / ENCODER_FILE).write_text(json.dumps({"prompts": prompts}), encoding="utf-8")
    print(f"{len(prompts)} rows, {sum(map(len, prompts)) / len(prompts):.1f} tokens on average")


if __name__ == "__main__":
    main()
