"""The page of figures is what the measurements beside it say, and so are the tables elsewhere."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.page import Figure, headline, machine, main, operators, others, page

REPOSITORY = Path(__file__).parents[2]
MEASURED = REPOSITORY / "docs" / "performance"
README_NAMES = {
    "qe-edge, rows in a running process": "`qe_edge.Scorer`",
    "OpenVINO int8, the same 20 blocks (loses what tells rows apart)": "openvino int8-static-cut",
    "ONNX Runtime dynamic int8, the same 20 blocks (loses it altogether)": "onnxruntime int8-dynamic-cut",
    "OpenVINO bf16, the same 20 blocks": "openvino bf16-cut",
    "OpenVINO, weights in int8, the same 20 blocks": "openvino int8-weights-cut",
    "an encoder of the shape of XLM-RoBERTa-large, ONNX Runtime dynamic int8": "encoder-onnxruntime int8-dynamic",
    "torch bf16, the same 20 blocks, compiled": "torch bf16-cut-sorted-compiled",
    "torch bf16, all 30 blocks, sorted by length": "torch bf16-uncut-sorted",
    "llama.cpp q8_0, the same 20 blocks": "llama.cpp q8_0-cut-sorted",
}


def text(name: str) -> str:
    return (REPOSITORY / name).read_text(encoding="utf-8")


def entry(name: str, speed: float, centred: float | None = 0.1) -> dict[str, Any]:
    """What `compare.py` writes of a variant."""
    errors = {"error": centred, "centred_error": centred}
    return {"name": name, "rows_per_second": speed, "peak_rss_mib": 1.0, "seconds_of_rounds": [1.0]} | errors


def compared(*entries: dict[str, Any]) -> dict[str, Any]:
    ours = entry("qe-edge scorer", 10.0, None), entry("qe-edge states", 5.0, 0.5)
    return {
        "results": [*ours, *entries],
        "rows": 30,
        "rounds": 1,
        "threads": 2,
        "failures": {"llama.cpp f32": "signal 11"},
    }


def test_the_page_is_made_of_the_measurements_beside_it() -> None:
    assert text("docs/performance.md") == page(MEASURED)


def test_the_table_of_the_readme_is_that_of_the_page() -> None:
    row = re.compile(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]*) ?\|", re.MULTILINE)
    measured = {name: figures for name, *figures in row.findall(text("docs/performance.md"))}
    readme = text("README.md")
    told = row.findall(readme[readme.index("| | rows/s |") : readme.index("![Rows per second")])
    assert {name: figures for name, *figures in told} == {name: measured[peer] for name, peer in README_NAMES.items()}


def test_what_the_readme_says_of_the_headline_is_measured() -> None:
    times = headline(json.loads((MEASURED / "peers-1000.json").read_text(encoding="utf-8")))["scorer_times"]
    share = Figure(json.loads((MEASURED / "bench.json").read_text(encoding="utf-8"))["int8_share"])
    assert f"1000 rows: {times:.1f} times torch" in text("README.md")
    assert f"at {share:.0%} of what ONNX Runtime's largest int8 product reaches" in text("README.md")


def test_the_table_of_kernels_is_measured() -> None:
    found = json.loads((MEASURED / "kernels.json").read_text(encoding="utf-8"))
    line = next(line for line in text("docs/kernels.md").splitlines() if "(`kernels.json`" in line)
    speeds = [f"{found[name]['rows_per_second']:.1f}" for name in ("off", "avx2", "float32", "vectors", "all")]
    assert re.findall(r"\d+\.\d", line)[:5] == speeds


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (f"{Figure(0.5):.2f}", ".50"),
        (f"{Figure(-0.5):.2f}", "-.50"),
        (f"{Figure(10.5):.1f}", "10.5"),
        (f"{Figure(0.775):.1%}", "77.5 %"),
        (f"{Figure(0.004):.1%}", ".4 %"),
    ],
)
def test_figures_are_written_without_a_leading_zero(written: str, expected: str) -> None:
    assert written == expected


def test_a_peer_that_wins_is_named_and_one_that_fails() -> None:
    told = others(compared(entry("openvino", 2.0), entry("torch", 12.0, 0.9)))
    assert (told["faster"], told["lost"], told["failed"]) == ("torch", "torch", "llama.cpp f32")
    assert told["nearest"] == "torch (the scorer is .8 times as fast)"
    assert told["nearest_kept"] == "openvino (the scorer is 5.0 times as fast)"
    assert told["table"].splitlines()[3] == "| torch | 12.0 | .8 | 1 | .900 | .90 |"


def test_encoders_have_no_state_to_keep() -> None:
    told = others(compared(entry("encoder", 2.0, None)))
    assert (told["lost"], told["nearest_kept"]) == ("none", "none")
    assert told["table"].splitlines()[-1] == "| encoder | 2.0 | 5.0 | 1 |  |  |"


def test_operators_are_those_that_were_measured() -> None:
    found = [{"name": "MatMulIntegerToFloat", "seconds": 3.0}, {"name": "Linear", "seconds": 1.0}]
    rows = operators([*found, {"name": "Add", "seconds": 0.01}]).splitlines()
    assert [row.split(" | ")[:2] for row in rows[2:]] == [
        ["| `MatMulIntegerToFloat`", "74.8 %"],
        ["| `Linear`", "24.9 %"],
        ["| embedding, the last block, all else", ".2 %"],
    ]


def test_other_machines_have_pages_too(tmp_path: Path) -> None:
    folder = shutil.copytree(MEASURED, tmp_path / "measured")
    ways = {"one batch on 8 cores": {"96": 1.0}, "a batch on each core": {"96": 2.0}}
    (folder / "batches.json").write_text(json.dumps({"rows": 200, "tokens_per_second": ways}), encoding="utf-8")
    (folder / "invariance.json").write_text(json.dumps({"alone": 0.0, "shuffled": 0.002}), encoding="utf-8")
    written = page(folder)
    assert "| padded tokens a batch | 96 |\n|---|---|\n| one batch on 8 cores | 1 |" in written
    assert "scores move by up to .0020 points of 100" in written


def test_a_lacking_headline_is_told_and_the_page_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(MEASURED, tmp_path / "measured")
    (folder / "peers-1000.json").write_text(json.dumps(compared()), encoding="utf-8")
    written = tmp_path / "page.md"
    monkeypatch.setattr("sys.argv", ["page", "write", str(folder), str(written)])
    with pytest.raises(SystemExit, match=r"is not written: peers-1000\.json has no qe-edge command, torch bf16"):
        main()
    assert not written.exists()


def test_a_machine_of_which_the_system_tells_nothing_is_told_as_far_as_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.page.CPU_FACTS", tmp_path / "none")
    found = machine()
    assert found["processor"]
    assert found["details"] == []


def test_instructions_are_those_of_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("model name\t: Some CPU\ncpu family\t: 26\nflags\t\t: fpu avx2 avx512_vnni\n", encoding="utf-8")
    monkeypatch.setattr("benchmarks.page.CPU_FACTS", facts)
    assert machine()["processor"] == "Some CPU"
    assert machine()["details"] == ["family 26", "AVX512-VNNI", "AVX2"]
