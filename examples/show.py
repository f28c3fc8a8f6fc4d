"""Print the output of `qe-edge score` on the example rows as a table that fits the terminal.

Usage: qe-edge score examples/mlqe-pe-sample.tsv | python examples/show.py
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import groupby

COLUMNS = {
    "lp": "pair",
    "original": "source",
    "translation": "translation",
    "mean": "human DA",
    "qe_score": "qe_score",
    "qe_status": "status",
}
"""Column of the file -> heading."""
TEXTS = ("original", "translation")
NUMBERS = ("mean", "qe_score")
GAP = "  "


def width(text: str) -> int:
    """Terminal cells of a text: two for wide East Asian characters, none for marks that combine with another."""
    return sum(cells(character) for character in text)


def cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, room: int, right: bool = False) -> str:
    """The text in exactly `room` >= 1 cells: filled with spaces on one side, or cut and ended with "…"."""
    if width(text) > room:
        kept = ""
        for character in text:
            if width(kept + character) > room - 1:
                break
            kept += character
        text = kept + "…"
    fill = " " * (room - width(text))
    return fill + text if right else text + fill


def table(rows: Sequence[dict[str, str]], columns: int) -> Iterable[str]:
    """The lines of the table, at most `columns` cells wide, with an empty line between language pairs."""
    rows = [row | {name: f"{float(row[name]):.1f}" for name in NUMBERS if row[name]} for row in rows]
    rooms = {name: max(width(head), *(width(row[name]) for row in rows)) for name, head in COLUMNS.items()}
    spare = columns - sum(room for name, room in rooms.items() if name not in TEXTS) - len(GAP) * (len(COLUMNS) - 1)
    for name in TEXTS:
        rooms[name] = max(12, min(rooms[name], spare // len(TEXTS)))

    def line(row: dict[str, str]) -> str:
        return GAP.join(fit(row[name], room, name in NUMBERS) for name, room in rooms.items()).rstrip()

    yield line(COLUMNS)
    yield GAP.join("-" * room for room in rooms.values())
    for index, (_, group) in enumerate(groupby(rows, key=lambda row: row["lp"])):
        if index:
            yield ""
        yield from map(line, group)


def main() -> int:
    lines = [line.rstrip("\r\n").split("\t") for line in sys.stdin]
    if len(lines) < 2:
        return 1  # the scorer has already said why
    header, *cells_of_rows = lines
    rows = [dict(zip(header, row, strict=True)) for row in cells_of_rows]
    print("\n".join(table(rows, shutil.get_terminal_size((140, 24)).columns)))
    print("\nhuman DA: mean of human judgements; qe_score: estimate without a reference. Both from 0 to 100.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
