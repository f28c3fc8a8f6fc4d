"""Parallel text: one file per language, whose n-th lines say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qe_edge.errors import InputError
from qe_edge.languages import resolve
from qe_edge_train.recipe import ParallelText


@dataclass(frozen=True)
class ParallelSet:
    """The same sentences in several languages. Position i of every column is the same line."""

    languages: tuple[str, ...]
    """codes that `resolve` returns, in the order of the texts"""
    sentences: dict[str, tuple[str, ...]]
    """one column of equal length per language"""
    numbers: tuple[int, ...]
    """line number in the files, from 1, of every position"""
    total: int = 0
    """lines of each file"""
    empty: int = 0
    """lines left out of every language because they are empty in at least one: all directions rank the same lines"""

    def __len__(self) -> int:
        return len(self.numbers)

    def part(self, start: int, stop: int) -> ParallelSet:
        """The lines at positions `start` to `stop` - 1, as of a slice."""
        columns = {language: column[start:stop] for language, column in self.sentences.items()}
        return ParallelSet(self.languages, columns, self.numbers[start:stop], self.total)


def load_parallel(texts: Sequence[ParallelText], folder: Path, first_line: int = 1, lines: int = 0) -> ParallelSet:
    """Read parallel text files (UTF-8, paths relative to `folder`).

    first_line: first line used, from 1; lines: how many from there, 0 for all. Both count the lines of the files, empty
    ones too, so that ranges that do not overlap here share no line.
    Raises InputError with file and remedy: fewer than two languages, a language or file given twice, a file that cannot
    be read or is empty, files of unequal length, a range beyond the end, and a range without one line that is whole.
    """
    languages = _languages(texts)
    paths = [folder / text.path for text in texts]
    columns = [_read_lines(path) for path in paths]
    for path, column in zip(paths, columns, strict=True):
        if len(column) != len(columns[0]):
            raise InputError(
                f"{path}: {len(column)} lines, but {paths[0]} has {len(columns[0])}; "
                "the n-th lines of parallel files must say the same"
            )
    total = len(columns[0])
    stop = first_line - 1 + lines if lines else total
    if first_line > total or stop > total:
        wanted = f"lines {first_line} to {stop}" if lines else f"lines from {first_line}"
        raise InputError(f"{paths[0]}: has {total} lines, not {wanted}; lower first_line or lines")
    span = range(first_line - 1, stop)
    kept = [i for i in span if all(column[i].strip() for column in columns)]
    if not kept:
        raise InputError(f"{paths[0]}:{first_line}: every line up to {stop} is empty in at least one language")
    sentences = {language: tuple(column[i] for i in kept) for language, column in zip(languages, columns, strict=True)}
    return ParallelSet(languages, sentences, tuple(i + 1 for i in kept), total, len(span) - len(kept))


def _languages(texts: Sequence[ParallelText]) -> tuple[str, ...]:
    languages = tuple(_language(text) for text in texts)
    if len(texts) < 2:
        raise InputError(f"[[alignment.texts]]: {len(texts)} of them; at least two languages are needed")
    for at, (language, text) in enumerate(zip(languages, texts, strict=True)):
        if language in languages[:at]:
            first = texts[languages.index(language)]
            raise InputError(f"{text.path}: language {language!r} is already that of {first.path}; give each once")
        if text.path in [other.path for other in texts[:at]]:
            raise InputError(f"{text.path}: is given for two languages; give each language its own file")
    return languages


def _language(text: ParallelText) -> str:
    try:
        return resolve(text.language)
    except InputError as error:
        raise InputError(f"[[alignment.texts]] {text.path}: {error}") from None


def _read_lines(path: Path) -> list[str]:
    """The lines of a file without their ends. Only \\n ends a line: other separators that Unicode knows may stand
    inside a sentence."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path and the data folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if not content.strip():
        raise InputError(f"{path}: is empty")
    lines: list[str] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").split(b"\n"), start=1):
        try:
            lines.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{path}:{number}: not UTF-8: {error.reason}; convert the file to UTF-8") from None
    return lines
