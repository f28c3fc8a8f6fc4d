"""`qe-edge inspect`: what a bundle is, without running it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from qe_edge.bundle import EMBEDDED_BUNDLE, Bundle, open_bundle
from qe_edge.errors import InputError
from qe_edge.languages import english_name, parse_pair
from qe_edge.table.columns import usual_names


def inspect(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="Bundle folder; the embedded one if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything the bundle records, as JSON.")] = False,
) -> None:
    """Say what a bundle is and how good it is.

    Base model, data, licence, languages, precision, parity and quality figures, size and hash.
    The hashes of all files are verified; nothing is run.
    """
    opened = open_bundle(bundle or EMBEDDED_BUNDLE)
    typer.echo(_as_json(opened) if as_json else _as_text(opened))


def _as_json(bundle: Bundle) -> str:
    content = {
        "folder": str(bundle.folder),
        "digest": bundle.digest,
        "bytes": bundle.size,
        **asdict(bundle.spec),
        "tap": bundle.spec.tap_label,
    }
    return json.dumps(content, ensure_ascii=False, indent=2)


def _as_text(bundle: Bundle) -> str:
    lines = [*_facts(bundle), *_section("parity with the trained model", bundle.spec.gate)]
    lines += _section("quality on dev", bundle.spec.metrics)
    width = max(len(label) for label, _ in lines)
    return "\n".join(f"{label:<{width}}  {value}".rstrip() for label, value in lines)


def _facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    spec = bundle.spec
    yield "bundle", f"{spec.name}@{bundle.digest}"
    yield "folder", str(bundle.folder)
    yield "size", f"{bundle.size / (1 << 20):.1f} MiB"
    yield "base model", f"{spec.base_model} ({spec.base_family})"
    yield "licence", spec.licence
    yield "training data", ", ".join(spec.data)
    yield "reads columns", ", ".join(usual_names(bundle.prompt))
    if bundle.prompt.uses_languages:
        yield "languages", ", ".join(map(_pair_names, spec.language_pairs))
    yield "score", spec.score_scale
    upper = f", {spec.blocks_kept - spec.full_blocks} of them on the last token alone" if spec.full_blocks else ""
    yield "tap", f"{spec.tap_label} ({spec.strategy}): {spec.blocks_kept} of {spec.blocks_total} blocks{upper}"
    yield "precision", spec.precision
    yield "token limit", f"{spec.token_limit} tokens a prompt"
    yield "format version", str(spec.format_version)
    yield "created with", ", ".join(f"{name} {version}" for name, version in spec.created_with.items())
    for name, digest in spec.files.items():
        yield f"sha256 {name}", digest


def _pair_names(pair: str) -> str:
    with suppress(InputError):  # whatever a bundle's record says its languages are
        source, target = parse_pair(pair)
        return f"{pair} ({english_name(source)}-{english_name(target)})"
    return pair


def _section(title: str, figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "", ""
    yield title, "" if figures else "not recorded"
    yield from _figures("  ", figures)


def _figures(indent: str, figures: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested figures, one a line; innermost groups of plain figures stay on one line."""
    for name, value in figures.items():
        if not isinstance(value, dict):
            yield f"{indent}{name}", _figure(value)
        elif any(isinstance(inner, dict) for inner in value.values()):
            yield f"{indent}{name}", ""
            yield from _figures(f"{indent}  ", value)
        else:
            yield f"{indent}{name}", ", ".join(f"{inner} {_figure(number)}" for inner, number in value.items())


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
