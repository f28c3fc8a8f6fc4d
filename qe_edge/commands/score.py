"""`qe-edge score`: a table, or two aligned text files, with a quality score for every row."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Annotated, Literal

import typer

from qe_edge.bundle import EMBEDDED_BUNDLE, open_bundle
from qe_edge.commands.folder import Engine, FolderRun
from qe_edge.commands.loading import Device, Loading, load_scorer, read_limit
from qe_edge.errors import EXIT_INVALID_ROWS, InputError, UsageError
from qe_edge.prompt import Prompt
from qe_edge.rows import Status
from qe_edge.shards.folder import find_shards
from qe_edge.shards.shard import Options
from qe_edge.table.formats import check_output, open_any
from qe_edge.table.inputs import file_facts, unchanged
from qe_edge.table.items import Input
from qe_edge.table.journal import Identity
from qe_edge.table.output import belongs_to, open_output
from qe_edge.table.parallel import open_parallel
from qe_edge.table.paths import is_file, is_folder
from qe_edge.table.report import Report
from qe_edge.table.stream import OnTruncate, score_input
from qe_edge.table.text import STDIN


def score(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Table (.tsv, .jsonl, .parquet) with the columns that the bundle reads, source and translation; "
            "- is standard input; or a folder of such tables.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="OUT", help="Where the scores go; standard output if not given."),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option("-s", "--sources", metavar="SRC.txt", help="Instead of a table: source texts, one a line."),
    ] = None,
    translations: Annotated[
        str | None,
        typer.Option("-t", "--translations", metavar="MT.txt", help="Their translations; gives one score a line."),
    ] = None,
    lp: Annotated[
        str | None,
        typer.Option(
            metavar="PAIR",
            help="Languages of all rows, as et-en, est-eng or Estonian-English. "
            "If not given: column lp, or src_lang and tgt_lang, or detected from the text.",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("-m", "--model", metavar="BUNDLE", help="Bundle folder; the embedded one if not given."),
    ] = None,
    device: Annotated[
        Device, typer.Option(help="Where to run: auto takes a GPU if there is one, cuda fails if there is none.")
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="CPU threads, each with batches of its own; one a core if not given."),
    ] = None,
    quoting: Annotated[
        Literal["auto", "none", "csv"],
        typer.Option(help="How cells are written: as they are, or in CSV quotes. auto decides from the start."),
    ] = "auto",
    fields: Annotated[
        str | None,
        typer.Option(metavar="N,N", help="For a table without a header: numbers of the text columns, as 1,2."),
    ] = None,
    on_truncate: Annotated[
        OnTruncate, typer.Option(help="Rows too long for the model: score what fits, leave the score empty, or stop.")
    ] = OnTruncate.SCORE,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep scores in this file, and take those of rows that it knows from there."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew where an interrupted run left a part of the output.")
    ] = False,
    engine: Annotated[
        Engine,
        typer.Option(help="For a folder: one table after the other in this process, or several at once with Ray."),
    ] = Engine.PROCESS,
    workers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="With Ray: scorers at once, of --threads each; all cores if not given."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="With Ray: a running cluster, as host:6379; this machine if not given."),
    ] = None,
    gpu_mem_limit: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Most memory to take on a GPU, as 4G or 800M; what is free if not given."),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no summary, only warnings.")] = False,
) -> None:
    """Score the translations in a TSV file, or the texts that a bundle was trained to score.

    Needs no reference translations. Writes every row, in order, with two more cells: qe_score (on the bundle's scale;
    for translations normally 0 to 100, higher is better) and qe_status. Messages go to standard error.

    Exit code 0: all rows could be read and scored; 4: some could not and are marked invalid; others: docs/scoring.md.
    """
    _check_names({"FILE": file, "-o": output, "--sources": sources, "--translations": translations})
    if restart and output in (None, STDIN):
        raise UsageError(
            "--restart is for an output that an interrupted run left unfinished; add -o OUT, or leave it out"
        )
    loading = Loading(device, threads, cache, read_limit(gpu_mem_limit, device))
    if engine is not Engine.RAY and (workers is not None or address is not None):
        raise UsageError("--workers and --address are for --engine ray; add it, or leave them out")
    if file is not None and is_folder(file):
        if output in (None, STDIN):
            raise InputError(f"{file}: is a directory; give -o FOLDER as well, where its tables are to be written")
        if sources is not None or translations is not None:
            raise UsageError(f"{file}: give either a folder or --sources and --translations, not both")
        if engine is Engine.RAY and device != "cuda" and gpu_mem_limit is not None:
            raise UsageError("--gpu-mem-limit: with --engine ray only --device cuda takes a GPU; add it")
        folder, scored = Path(file), Path(output or "")
        shards = find_shards(folder, scored)
        if cache is not None:
            _check_cache(cache, (shard.target for shard in shards))
        run = FolderRun(
            folder,
            scored,
            shards,
            model or EMBEDDED_BUNDLE,
            Options(lp, quoting, fields, on_truncate),
            restart,
            quiet,
        )
        if engine is Engine.RAY:
            run.on_ray(loading, workers, address)
        else:
            run.in_process(lambda bundle: load_scorer(bundle, loading))
        return
    if engine is Engine.RAY:
        raise UsageError("--engine ray is for folders of tables; give a folder, and -o FOLDER")
    if cache is not None and output not in (None, STDIN):
        _check_cache(cache, [Path(os.path.realpath(output or ""))])
    report = Report(sys.stderr, quiet=quiet)
    inputs = [path for path in (file, sources, translations) if path is not None]
    with ExitStack() as opened:
        check_output(file, output)
        bundle = open_bundle(model or EMBEDDED_BUNDLE)
        begun = file_facts([path for path in inputs if is_file(path)])
        source = opened.enter_context(_open(file, sources, translations, bundle.prompt, lp, quoting, fields))
        resumable = len(begun) == len(inputs)  # what is read from a pipe cannot be read again
        target = opened.enter_context(
            open_output(output, inputs, resumable=resumable, restart=restart, finish=source.finish)
        )
        scorer = load_scorer(bundle, loading)
        if resumable:
            chosen = {"lp": lp, "quoting": quoting, "fields": fields, "on_truncate": on_truncate}
            target.resume(Identity(begun, scorer.signature, chosen))
        report.start(scorer.signature, source.said, source.assumed)
        try:
            with unchanged(begun):
                tally = score_input(source, scorer, target, on_truncate, report)
        except BaseException as error:
            if target.kept and not isinstance(error, InputError):  # with this input it would end again
                with suppress(OSError):  # after a hang-up there may be no terminal to tell
                    report.kept(target.kept, str(output))
            raise
        finally:
            scorer.close()
    report.finish(tally)
    if tally[Status.INVALID]:
        raise typer.Exit(EXIT_INVALID_ROWS)


def _check_names(names: dict[str, str | None]) -> None:
    """Refuse names that are empty, as those of a shell's variable that is not set."""
    for option, name in names.items():
        if name is not None and not name.strip():
            raise UsageError(f"{option} is empty; give the name of a file")


def _check_cache(cache: Path, outputs: Iterable[Path]) -> None:
    """Refuse a cache that writing the outputs would overwrite. outputs: their real paths."""
    place = Path(os.path.realpath(cache))
    for output in outputs:
        if belongs_to(place, output):
            raise UsageError(
                f"--cache {cache}: is the output {output} or a hidden file beside it; give the cache another name"
            )


def _open(
    file: str | None,
    sources: str | None,
    translations: str | None,
    prompt: Prompt,
    lp: str | None,
    quoting: str,
    fields: str | None,
) -> AbstractContextManager[Input]:
    """The input that the options name."""
    if STDIN in (file, sources, translations) and sys.stdin is None:
        raise InputError("stdin: is closed; give a file, or a pipe that is open")
    if file is not None:
        if sources is not None or translations is not None:
            raise UsageError(f"{file}: give either a table or --sources and --translations, not both")
        return open_any(file, prompt=prompt, lp=lp, quoting=quoting, fields=fields)
    if sources is None or translations is None:
        raise UsageError("nothing to score; give FILE.tsv (- for standard input), or both --sources and --translations")
    if fields is not None or quoting != "auto":
        raise UsageError("--fields and --quoting are for tables; leave them out with --sources and --translations")
    return open_parallel(sources, translations, prompt=prompt, lp=lp)
