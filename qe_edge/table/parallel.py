"""Two line-aligned text files as a stream of items to be scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from qe_edge.errors import InputError, UsageError
from qe_edge.prompt import ALOPE_PROMPT, Prompt
from qe_edge.rows import Row
from qe_edge.table.columns import usual_names
from qe_edge.table.detection import detect_pair
from qe_edge.table.first_rows import all_rows, first_rows
from qe_edge.table.items import Input, Item, as_score_line
from qe_edge.table.languages import Codes, PairRule, detected, told, unused
from qe_edge.table.text import STDIN, Line, TextInput, open_text, text_fault


@contextmanager
def open_parallel(
    sources: str, translations: str, *, prompt: Prompt = ALOPE_PROMPT, lp: str | None = None
) -> Iterator[Input]:
    """Open two text files whose lines belong together; "-" is standard input, for one of them.

    prompt: a prompt for translations; lp: the language pair of all rows.

    Raises InputError when one cannot be used or when they have different numbers of lines, before any item is read;
    UsageError for a bad `lp` and for a prompt that reads other texts. A line that is not valid UTF-8 stops nothing: its
    item's `Row.fault` says why.
    """
    if not prompt.is_translation:
        raise UsageError(
            f"--sources and --translations are for translations; this bundle reads {', '.join(usual_names(prompt))}: "
            "give a table with these columns"
        )
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
        window = first_rows(lines, lambda pair: len(pair[0].text) + len(pair[1].text))
        name = f"{source.name} and {translation.name}"
        rule = _rule(lp, prompt, window, name)
        said = (f"read as {counts[0]} aligned lines", *rule.said)
        items = (_item(s, t, source, translation, rule.pair(())) for s, t in all_rows(window, lines))
        yield Input(said, rule.assumed, items, "", as_score_line)


def _rule(lp: str | None, prompt: Prompt, window: Iterable[tuple[Line, Line]], name: str) -> PairRule:
    if not prompt.uses_languages:
        return unused(lp)
    if lp is not None:
        return told(lp)
    usable = ((s.text, t.text) for s, t in window if text_fault(s.text + t.text) is None)
    return detected(detect_pair(usable, name))


def _item(source: Line, translation: Line, sources: TextInput, translations: TextInput, codes: Codes) -> Item:
    for line, text in ((source, sources), (translation, translations)):
        fault = text_fault(line.text)
        if fault is not None:
            return Item(Row((), *codes, fault=fault), f"{text.name}:{line.number}")
    return Item(Row.translation(source.text, translation.text, *codes), f"{translations.name}:{translation.number}")
