"""Two line-aligned text files as a stream of items to be scored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice

from qe_edge.errors import InputError, UsageError
from qe_edge.rows import Row
from qe_edge.table.detection import DETECTION_ROWS, detect_pair
from qe_edge.table.items import Input, Item, as_score_line
from qe_edge.table.languages import Pair, detected, told
from qe_edge.table.text import STDIN, Line, TextInput, open_text, text_fault


@contextmanager
def open_parallel(sources: str, translations: str, *, lp: str | None = None) -> Iterator[Input]:
    """Open two text files whose lines belong together; "-" is standard input, for one of them.

    Raises InputError when one cannot be used or when they have different numbers of lines, before any item is read;
    UsageError for a bad `lp`. A line that is not valid UTF-8 stops nothing: its item's `Row.fault` says why.
    """
    if sources == translations == STDIN:
        raise UsageError("--sources - --translations -: standard input can be only one of them; give a file")
    with open_text(sources, twice=True) as source, open_text(translations, twice=True) as translation:
        counts = [sum(1 for _ in text.lines()) for text in (source, translation)]
        if counts[0] != counts[1]:
            raise InputError(
                f"{source.name} has {counts[0]} lines, {translation.name} has {counts[1]}; "
                "line n of one must be the translation of line n of the other"
            )
        lines = zip(source.lines(), translation.lines(), strict=True)
        window = list(islice(lines, DETECTION_ROWS))
        name = f"{source.name} and {translation.name}"
        usable = ((s.text, t.text) for s, t in window if text_fault(s.text + t.text) is None)
        rule = told(lp) if lp is not None else detected(detect_pair(usable, name))
        said = (f"read as {counts[0]} aligned lines", *rule.said)
        items = (_item(s, t, source, translation, rule.pair(())) for s, t in chain(window, lines))
        yield Input(said, rule.assumed, items, "", as_score_line)


def _item(source: Line, translation: Line, sources: TextInput, translations: TextInput, pair: Pair) -> Item:
    for line, text in ((source, sources), (translation, translations)):
        fault = text_fault(line.text)
        if fault is not None:
            return Item(Row("", "", *pair, fault=fault), f"{text.name}:{line.number}")
    return Item(Row(source.text, translation.text, *pair), f"{translations.name}:{translation.number}")
