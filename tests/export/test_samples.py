"""Sampled rows: disjoint, never from dev for training purposes, and run through a graph as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import onnx_ir as ir
import pytest

from qe_edge.errors import InputError
from qe_edge.scoring.graph import KeyValueShape
from qe_edge_export.samples import CalibrationRows, PairRows, SampleSizes, load_samples
from qe_edge_train.batches import EncodedSet
from qe_edge_train.run import Run

SIZES = SampleSizes(calibration=3, refit=7, gate=4, doubt=9)


def texts(data: EncodedSet) -> list[tuple[str, str]]:
    return [(example.pair, example.texts[0]) for example in data.examples]


def test_the_purposes_take_their_rows_of_every_pair(tiny_run: Callable[[str], Run], tables: Path) -> None:
    samples = load_samples(tiny_run("none"), tables, SIZES)

    for data, count in ((samples.calibration, 3), (samples.refit, 7), (samples.gate, 4), (samples.doubt, 9)):
        assert [pair for pair, _ in texts(data)] == ["et-en"] * count + ["ne-en"] * count
        assert len(set(texts(data))) == 2 * count
    assert all(source.startswith("source train") for _, source in texts(samples.calibration) + texts(samples.refit))
    assert all(source.startswith("source dev") for _, source in texts(samples.doubt))
    assert set(texts(samples.gate)) < set(texts(samples.doubt))


def test_the_same_run_gives_the_same_rows(tiny_run: Callable[[str], Run], tables: Path) -> None:
    run = tiny_run("none")

    assert load_samples(run, tables, SIZES) == load_samples(run, tables, SIZES)


def test_tables_that_are_not_what_the_training_read_are_named(
    tiny_run: Callable[[str], Run], tables: Path, tmp_path: Path
) -> None:
    run = tiny_run("none")
    later = Path(copytree(tables, tmp_path / "later"))
    assert load_samples(run, later, SIZES).changed == []

    with (later / "dev.tsv").open("a", encoding="utf-8") as stream:
        stream.write("et-en\tone more\tgood\t50\n")

    assert load_samples(run, later, SIZES).changed == ["dev.tsv"]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("train.tsv", "dev", "no training rows are left without empty, repeated and dev rows"),
        ("dev.tsv", "et-en\ta\tb\t1\nne-en\ta\tb\t1\n", "dev rows of et-en: 1 with one score"),
        ("dev.tsv", "et-en\t\t\t1\n", "no dev rows are left"),
    ],
)
def test_tables_that_nothing_can_be_measured_on_are_refused(
    tiny_run: Callable[[str], Run], tables: Path, tmp_path: Path, name: str, rows: str, message: str
) -> None:
    later = Path(copytree(tables, tmp_path / "later"))
    header = "lp\toriginal\ttranslation\tmean\n"
    (later / name).write_text((later / "dev.tsv").read_text() if rows == "dev" else header + rows)

    with pytest.raises(InputError, match=message):
        load_samples(tiny_run("none"), later, SIZES)


def test_a_missing_table_is_named_with_the_option(tiny_run: Callable[[str], Run], tables: Path, tmp_path: Path) -> None:
    later = Path(copytree(tables, tmp_path / "later"))
    (later / "train.tsv").unlink()

    with pytest.raises(InputError, match=r"later/train\.tsv: no such file; say where the tables are now with --data"):
        load_samples(tiny_run("none"), later, SIZES)


def test_training_rows_that_are_also_in_dev_are_left_out(tiny_run: Callable[[str], Run], tables: Path) -> None:
    run = tiny_run("none")
    run = replace(run, recipe=replace(run.recipe, train=(*run.recipe.train, *run.recipe.dev)))

    samples = load_samples(run, tables, SampleSizes(calibration=3, refit=1000, gate=4))

    assert len(samples.refit.examples) == 60
    assert all(source.startswith("source train") for _, source in texts(samples.refit))


def test_cases_of_doubt_take_rows_that_the_recipes_sample_left_out(
    tiny_run: Callable[[str], Run], tables: Path
) -> None:
    run = tiny_run("none")
    dev = tuple(replace(table, rows=8) for table in run.recipe.dev)
    sampled = replace(run, recipe=replace(run.recipe, dev=dev))

    samples = load_samples(sampled, tables, SIZES)

    assert [pair for pair, _ in texts(samples.doubt)] == ["et-en"] * 9 + ["ne-en"] * 9
    assert len(set(texts(samples.doubt))) == 18
    assert set(texts(samples.gate)) < set(texts(samples.doubt))
    # what is learnt from is never what decides
    learnt = replace(run.recipe, train=(*run.recipe.train, *(replace(table, rows=40) for table in run.recipe.dev)))
    both = load_samples(replace(run, recipe=replace(learnt, dev=dev)), tables, replace(SIZES, refit=1000, doubt=1000))
    assert not set(texts(both.doubt)) & set(texts(both.refit))


def test_a_missing_data_folder_is_named_with_the_option(tiny_run: Callable[[str], Run], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone: no such data folder .*--data"):
        load_samples(tiny_run("none"), tmp_path / "gone", SIZES)


def counting_graph() -> ir.Model:
    """A graph with one block whose key of a token is its id and whose state_0 is the sum of all keys seen: [B, 1]."""

    def value(name: str, kind: ir.DataType, *shape: int | str) -> ir.Value:
        return ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape))

    def constant(name: str, *numbers: int) -> ir.Value:
        array = np.array(numbers, np.int64)
        return ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.INT64),
            shape=ir.Shape([len(numbers)]),
            const_value=ir.tensor(array, name=name),
        )

    real, whole = ir.DataType.FLOAT, ir.DataType.INT64
    tokens, last = value("tokens", whole, "batch", "length"), value("last", whole, "batch")
    past = [value(name, real, 1, 1, "prefix", 1) for name in ("past_key_0", "past_value_0")]
    axes, sizes, minus, zero = (
        constant("axes", 1, 3),
        constant("sizes", 1, 1, 1),
        constant("minus", -1),
        constant("zero", 0),
    )
    cast = ir.node("Cast", [tokens], {"to": real}, outputs=[value("own", real, "batch", "length")])
    own = ir.node("Unsqueeze", [cast.outputs[0], axes], outputs=[value("keys", real, "batch", 1, "length", 1)])
    count = ir.node("Shape", [tokens], {"end": 1}, outputs=[value("count", whole, 1)])
    shape = ir.node("Concat", [count.outputs[0], sizes], {"axis": 0}, outputs=[value("shape", whole, 4)])
    # no token is negative: a row's own sum up to `last` needs no mask when padding is 0
    spread = ir.node("Expand", [past[0], shape.outputs[0]], outputs=[value("spread", real, "batch", 1, "prefix", 1)])
    key = ir.node(
        "Concat",
        [spread.outputs[0], own.outputs[0]],
        {"axis": 2},
        outputs=[value("present_key_0", real, "batch", 1, "total", 1)],
    )
    same = ir.node("Identity", [key.outputs[0]], outputs=[value("present_value_0", real, "batch", 1, "total", 1)])
    flat = ir.node("Squeeze", [key.outputs[0], axes], outputs=[value("flat", real, "batch", "total")])
    state = ir.node("ReduceSum", [flat.outputs[0], minus], outputs=[value("state_0", real, "batch", 1)])
    unused = ir.node("Add", [last, zero], outputs=[value("unused", whole, "batch")])
    graph = ir.Graph(
        [tokens, last, *past],
        [state.outputs[0], key.outputs[0], same.outputs[0]],
        nodes=[cast, own, count, shape, spread, key, same, flat, state, unused],
        initializers=[axes, sizes, minus, zero],
        opset_imports={"": 23},
        name="counting",
    )
    return ir.Model(graph, ir_version=10)


ROWS = CalibrationRows(
    (PairRows([100], [[1, 2, 3], [4], [5, 6]]), PairRows([200, 300], [[7, 8], [9]])),
    KeyValueShape(blocks=1, kv_heads=1, head_dim=1),
)


def test_states_come_in_row_order_after_their_own_prefix() -> None:
    assert len(ROWS) == 5
    assert ROWS.states(counting_graph()).tolist() == [[[106]], [[104]], [[111]], [[515]], [[509]]]


def test_values_inside_a_graph_can_be_read_with_their_padding_masked() -> None:
    model = counting_graph()

    batches = list(ROWS.run(model, ["own", "state_0"]))

    first, second = batches  # a batch for each pair, sorted by length
    assert first.rows == [1, 2, 0]
    assert first.lengths.tolist() == [1, 2, 3]
    assert first.outputs[0].tolist() == [[4, 0, 0], [5, 6, 0], [1, 2, 3]]
    assert first.real.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert second.rows == [4, 3]
    assert second.outputs[1].tolist() == [[509], [515]]
    assert [output.name for output in model.graph.outputs] == ["state_0", "present_key_0", "present_value_0"]


def test_runs_of_few_pairs_take_more_rows_of_each() -> None:
    assert SampleSizes.spread(7) == SampleSizes.spread(12) == SampleSizes()
    assert SampleSizes.spread(1) == SampleSizes(calibration=84, refit=1050, gate=700, doubt=2800)
    assert SampleSizes.spread(2) == SampleSizes(calibration=42, refit=525, gate=350, doubt=1400)
