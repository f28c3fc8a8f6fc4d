"""Coverage-guided fuzzing of reader and prompt builder, and random changes of graphs, with atheris (libFuzzer).

    python -m tests.fuzz.fuzz reader|prompts|graphs [options of libFuzzer, such as -runs=1000000 -max_total_time=600]

Begins from `inputs/` and what earlier runs kept in `.cache/fuzz/`. An input that breaks a promise ends the run and lies
in `.cache/fuzz/` as `reader-crash-...`; once its cause is mended, it belongs into `inputs/`, where the tests find it.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path

import atheris

TARGETS = ("reader", "prompts", "graphs")
"""modules beside this one; only the one that is asked for is imported, since `graphs` needs torch"""
FOLDER = Path(__file__).parent
KEPT = FOLDER.parent.parent / ".cache" / "fuzz"
MOST_SECONDS = 2.0
"""of the processor, for an input of at most 200 bytes: a busy machine makes no hang"""
LIMITS = ("-max_len=200", "-len_control=20", "-timeout=600", "-rss_limit_mb=2048")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"give one of {', '.join(TARGETS)}")
    with atheris.instrument_imports(include=["qe_edge"]):
        check = importlib.import_module(f"tests.fuzz.{name}").check
    corpus, inputs = KEPT / name, FOLDER / "inputs" / name
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # texts are short: threads would only wait
    corpus.mkdir(parents=True, exist_ok=True)
    for path in inputs.iterdir():
        check(path.read_bytes())  # loads what is loaded once

    def one(data: bytes) -> None:
        before = time.process_time()
        check(data)
        assert time.process_time() - before < MOST_SECONDS, "a short input takes long"

    options = (*LIMITS, f"-dict={FOLDER / 'words.dict'}", f"-artifact_prefix={KEPT}/{name}-", *sys.argv[2:])
    atheris.Setup([sys.argv[0], *options, str(corpus), str(inputs)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
