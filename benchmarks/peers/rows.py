"""Write the rows that all peers score: token ids of whole prompts, and the table for the qe-edge command.

Runs in the project's own environment; peers then need neither qe_edge nor a tokenizer. Tokens are those of the embedded
bundle: its tokenizer, its prompt, its token limit. The base has the same tokenizer.

    python -m benchmarks.peers.rows --file FOLDER/test20.eten.df.short.tsv --lp et-en
"""

from __future__ import annotations

import argparse
import json
from itertools import islice
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.peers.harness import ROWS_FILE, TABLE_FILE, WORK
from qe_edge.bundle import EMBEDDED_BUNDLE, open_bundle
from qe_edge.languages import english_name, parse_pair
from qe_edge.table.table import open_table
from qe_edge.tokens import PromptEncoder


def write_rows(file: Path, lp: str, count: int, work: Path) -> str:
    """Write rows.json and rows.tsv with the first `count` rows of an unquoted table; says what they are."""
    bundle = open_bundle(EMBEDDED_BUNDLE)
    spec = bundle.spec
    encoder = PromptEncoder(Tokenizer.from_file(str(bundle.tokenizer)), bundle.prompt, spec.bos, spec.token_limit)
    source, target = map(english_name, parse_pair(lp))
    with open_table(str(file), lp=lp) as table:
        texts = [item.row.texts for item in islice(table.items, count)]
    if len(texts) < count:
        raise ValueError(f"{file}: {len(texts)} rows, fewer than --rows {count}")
    prefix = encoder.fixed((source, target)).prefix
    prompts = [prefix + body.ids for body in encoder.bodies([((source, target), row) for row in texts])]
    work.mkdir(parents=True, exist_ok=True)
    data = {"pair": lp, "prompts": prompts, "texts": texts}
    (work / ROWS_FILE).write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    lines = file.read_text(encoding="utf-8").split("\n")[: count + 1]
    (work / TABLE_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    mean = sum(map(len, prompts)) / count
    return f"{count} rows, {len(set(texts))} distinct; {mean:.1f} tokens on average, {len(prefix)} of them the prefix"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, required=True, help="table of MLQE-PE")
    parser.add_argument("--lp", required=True, help="its language pair")
    parser.add_argument("--rows", type=int, default=1000, help="the first N rows (default 1000)")
    parser.add_argument("--work", type=Path, default=WORK, help=f"where to (default {WORK})")
    arguments = parser.parse_args()
    print(write_rows(arguments.file, arguments.lp, arguments.rows, arguments.work))


if __name__ == "__main__":
    main()
