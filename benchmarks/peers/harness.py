"""What every peer shares: the rows, the batches, the clock and the answer.

Needs numpy alone, because each peer runs in an environment of its own. A peer says which variants it has and how one is
loaded; `answer` does the rest and prints one line of JSON.

Legend: B rows of a batch, S tokens, H hidden size.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Ids = NDArray[np.int64]
Floats = NDArray[np.float32]

WORK = Path(".cache/peers")
"""Environments, rows and converted models; made by prepare.sh."""
BASE = Path(".cache/smollm2-135m-instruct")
"""The base, made by `make base`."""
ROWS_FILE = "rows.json"
"""Whole prompts; written by rows.py."""
TABLE_FILE = "rows.tsv"
"""The same rows as a table; written by rows.py."""
ENCODER_FILE = "encoder-rows.json"
"""Source and translation as an encoder reads them; written by make_encoder_rows.py."""
EMBEDDED = Path(__file__).parents[2] / "qe_edge" / "bundles" / "smollm2-135m-mlqe" / "bundle.json"
CUT_BLOCKS: int = json.loads(EMBEDDED.read_text(encoding="utf-8"))["blocks_kept"]
"""Blocks that a cut base keeps: as many as the embedded bundle."""
DECODERS = Path(f"decoders-{CUT_BLOCKS}")
"""Converted bases, whole and cut."""
ENCODERS = Path("encoders")
QE_EDGE_MODEL = DECODERS / "qe-edge-w8a8" / "model.onnx"
"""The base in qe-edge's own precision; written by make_qe_edge.py."""
BATCH = 16
"""Rows of a length-sorted batch, unless a variant says otherwise."""
WARM_UP = 64
"""Rows that are run before the clock starts."""
COMPARED = 50
"""Rows whose vectors are written for comparison with the reference."""


@dataclass(frozen=True)
class Variant:
    """One way to run a peer."""

    precision: str
    cut: bool = True
    """whether only the first CUT_BLOCKS blocks are run, without the final norm"""
    batch: int = BATCH
    """rows of a batch; rows are sorted by length unless it is 1"""
    compiled: bool = False
    """torch alone: whether torch.compile is used"""


@dataclass(frozen=True)
class Options:
    """The command line of a peer."""

    variant: str
    rows: int
    threads: int
    work: Path
    base: Path
    vectors: Path | None


Step = Callable[[Sequence[Sequence[int]]], Floats]
"""Runs one batch, B lists of token ids, and gives the last position's state of each row [B, H]."""


@dataclass(frozen=True)
class Timed:
    """What was measured of a variant."""

    load_seconds: float
    warm_up_seconds: float
    seconds: float


def parse(peer: str, variants: Sequence[str]) -> Options:
    """Options from the command line."""
    parser = argparse.ArgumentParser(description=f"Time {peer}; prints one line of JSON.")
    parser.add_argument("--variant", required=True, choices=variants)
    parser.add_argument("--rows", type=int, default=1000, help="N rows, spread over all (default 1000)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=WORK, help=f"folder of prepare.sh (default {WORK})")
    parser.add_argument("--base", type=Path, default=BASE, help=f"folder of the base (default {BASE})")
    parser.add_argument("--vectors", type=Path, help=f"write the states of the first {COMPARED} rows to this .npy file")
    return Options(**vars(parser.parse_args()))


def answer(
    peer: str,
    variants: Mapping[str, Variant],
    load: Callable[[Variant, Options], Step],
    packages: Sequence[str],
    file: str = ROWS_FILE,
) -> None:
    """Load the variant that the command line names, warm it up, run all rows, print the result.

    load: prepares a variant, converted models being on disk already; packages: whose versions are printed; file: where
    the token ids are. Raises ValueError when a state is not finite.
    """
    options = parse(peer, list(variants))
    variant = variants[options.variant]
    rows = read_prompts(options, file)
    started = time.perf_counter()
    step = load(variant, options)
    loaded = time.perf_counter()
    run(step, rows[:WARM_UP], variant.batch)
    warm = time.perf_counter()
    states = run(step, rows, variant.batch)
    timed = Timed(loaded - started, warm - loaded, time.perf_counter() - warm)
    if not np.isfinite(states).all():
        raise ValueError(f"{peer} {options.variant}: states that are not finite numbers")
    if options.vectors is not None:
        np.save(options.vectors, states[:COMPARED])
    report(peer, options, timed, packages)


def report(peer: str, options: Options, timed: Timed, packages: Sequence[str], who: int = resource.RUSAGE_SELF) -> None:
    """Print the answer. `who`: whose memory counts, this process or (RUSAGE_CHILDREN) the one it started."""
    result: dict[str, Any] = {"peer": peer, "variant": options.variant, "rows": options.rows}
    result |= {"threads": options.threads, **asdict(timed), "rows_per_second": options.rows / timed.seconds}
    result["peak_rss_mib"] = resource.getrusage(who).ru_maxrss / 1024  # KiB on Linux
    result["versions"] = {package: version(package) for package in packages}
    print(json.dumps(result), flush=True)


def read_prompts(options: Options, file: str = ROWS_FILE) -> list[list[int]]:
    """Token ids of the rows that are asked for. Raises ValueError when the file holds fewer."""
    path = options.work / file
    prompts: list[list[int]] = json.loads(path.read_text(encoding="utf-8"))["prompts"]
    if options.rows > len(prompts):
        raise ValueError(f"--rows {options.rows}: {path} holds {len(prompts)}; run prepare.sh with ROWS={options.rows}")
    return spread(prompts, options.rows)


def spread(items: Sequence[T], count: int) -> list[T]:
    """So many items, evenly spread over all: the first of a table may be shorter than the rest.

    >>> spread("abcdef", 3)
    ['a', 'c', 'e']
    """
    return [items[i * len(items) // count] for i in range(count)]


def run(step: Step, rows: Sequence[Sequence[int]], batch: int) -> Floats:
    """States [rows, H] in row order."""
    order: list[int] = []
    states = []
    for indices in batches([len(row) for row in rows], batch):
        states.append(step([rows[i] for i in indices]))
        order += indices
    return np.concatenate(states)[np.argsort(order)]


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Indices of rows in batches of `size`, longest first; as they come when `size` is 1."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i]) if size > 1 else list(range(len(lengths)))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def pad(batch: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """Token ids [B, S], padded on the right with 0, and the position of each row's last token [B].

    A causal decoder needs no mask then: no real position sees the padding.
    """
    lengths = np.array([len(row) for row in batch], np.int64)
    tokens = np.zeros((len(batch), int(lengths.max())), np.int64)
    for row, ids in enumerate(batch):
        tokens[row, : len(ids)] = ids
    return tokens, lengths - 1


def decoder_inputs(tokens: Ids) -> dict[str, Ids]:
    """Inputs of the graph that optimum-onnx exports from a decoder, for tokens [B, S]; nothing needs a mask."""
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "position_ids": np.ascontiguousarray(positions),
    }


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write converted models to. It gets its name when all is written, so that none is found half done."""
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    part.rename(folder)
