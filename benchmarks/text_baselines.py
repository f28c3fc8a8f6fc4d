"""Two baselines beside the scores of a table with one text column: what has a model learnt beyond level and length?

mean      the mean of the training scores, for every row
length    a straight line through the training scores over the logarithm of the text's length in characters

    python benchmarks/text_baselines.py --train TRAIN.tsv --scored SCORED.tsv -o COMPARED.tsv

The output is the scored table with the columns `length` and `mean` added, ready for `qe-edge eval`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from qe_edge.metrics import FloatArray


def columns(path: Path, *names: str) -> list[list[str]]:
    """The named columns of an unquoted table."""
    header, *rows = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [[row[header.index(name)] for row in rows] for name in names]


def log_lengths(texts: list[str]) -> FloatArray:
    """Logarithm of each text's length."""
    return np.log1p(np.array([len(text) for text in texts], np.float64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--scored", type=Path, required=True)
    parser.add_argument("--text", default="text", help="name of the text column")
    parser.add_argument("--column", default="score", help="name of the column that is learnt")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    texts, scores = columns(arguments.train, arguments.text, arguments.column)
    human = np.array(scores, np.float64)
    slope, level = np.polyfit(log_lengths(texts), human, 1)
    (scored,) = columns(arguments.scored, arguments.text)
    predicted = level + slope * log_lengths(scored)
    header, *rows = [line for line in arguments.scored.read_text(encoding="utf-8").split("\n") if line]
    lines = [f"{header}\tlength\tmean"]
    lines += [f"{row}\t{value:.4f}\t{human.mean():.4f}" for row, value in zip(rows, predicted, strict=True)]
    arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
