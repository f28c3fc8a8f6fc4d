"""Runs a bundle's graph: the shared prefix once, then batches of bodies after it. The only user of ONNX Runtime.

Legend: B rows, S body tokens, P prefix tokens, L blocks, G key/value heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from qe_edge.bundle import REBUILD
from qe_edge.errors import BundleError, DeviceError, UsageError
from qe_edge.rows import lone_surrogate
from qe_edge.scoring.huge_pages import MemorySince
from qe_edge.scoring.kernels.patterns import EXTEND
from qe_edge.scoring.kernels.rewrite import with_kernels

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
CPU_PRECISIONS = {"w8a8", "w4a8"}
"""Precisions whose operator, MatMulIntegerToFloat, ONNX Runtime has for the CPU only."""


@dataclass(frozen=True)
class KeyValueShape:
    """Shape of a decoder's keys and values."""

    blocks: int
    kv_heads: int
    head_dim: int

    @property
    def inputs(self) -> list[str]:
        """Graph inputs in block order: keys and values of the prefix."""
        return [f"past_{kind}_{block}" for block in range(self.blocks) for kind in ("key", "value")]

    @property
    def outputs(self) -> list[str]:
        """Graph outputs in block order: keys and values of prefix and body."""
        return [f"present_{kind}_{block}" for block in range(self.blocks) for kind in ("key", "value")]


Past = dict[str, ort.OrtValue]
"""Feeds of one prefix: name -> float32 [1, G, P, D], in the memory of the device that the graph runs on where P > 0."""

OUT_OF_MEMORY = (
    "allocate memory",
    "bad_alloc",
    "bad allocation",
    "out of memory",
    "alloc_failed",
    "smaller than requested bytes",
    "free memory block",
)
"""What ONNX Runtime's message holds, in lower case, when it found no memory."""
SAYS_NOTHING = 4
"""ONNX Runtime's severity above that of errors: each of them is raised as well, and would be told twice."""

WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
"""ONNX Runtime's name for where the weights of a graph lie that it is given without a path"""

ONLY_FETCHED = ort.RunOptions()
ONLY_FETCHED.only_execute_path_to_fetches = True
"""Leaves out of a run what no requested output depends on: keys and values need nothing of the head."""


def pick_device(requested: str, precision: str) -> str:
    """ "cpu", "cuda", or for "auto" cuda where ONNX Runtime offers it for this precision.

    Raises DeviceError when cuda is requested and not offered, or when the precision runs on the CPU only, and
    UsageError for any other name.
    """
    if requested != "auto" and requested not in PROVIDERS:
        raise UsageError(f"device {requested!r}: give auto, cpu or cuda")
    offered = ort.get_available_providers()
    if requested == "auto":
        return "cuda" if PROVIDERS["cuda"] in offered and precision not in CPU_PRECISIONS else "cpu"
    if PROVIDERS[requested] not in offered:
        raise DeviceError(
            f"--device {requested}: this ONNX Runtime offers {', '.join(offered)}; "
            "install qe-edge[cuda] instead of qe-edge[cpu] on a machine with an NVIDIA GPU, or use --device cpu"
        )
    if requested == "cuda" and precision in CPU_PRECISIONS:
        raise DeviceError(
            f"--device cuda: {precision} bundles run on the CPU; use --device cpu, or export with --precision fp32"
        )
    return requested


class Graph:
    """A graph with the inputs and outputs that `qe_edge.bundle.BundleSpec` describes, ready to run.

    `run` and `extend` may be called from several threads at once, and on a CPU should be: each call then runs on
    `threads` threads of ONNX Runtime, and one each is faster than all of them on one batch (docs/performance.md).
    profile: where files of ONNX Runtime's profile begin, to time every node; see `end_profile`. gpu_mem_limit: most
    bytes that ONNX Runtime takes on a GPU; what CUDA itself needs comes on top.

    Raises BundleError when ONNX Runtime refuses the graph or its path or its inputs have another shape, DeviceError
    when the device cannot be used (there is no silent change to another device), and MemoryError when there is not
    enough.
    """

    def __init__(
        self,
        model: Path,
        shape: KeyValueShape,
        device: str = "cpu",
        threads: int = 1,
        profile: Path | None = None,
        gpu_mem_limit: int | None = None,
    ) -> None:
        self._memory = MemorySince()
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = SAYS_NOTHING
        options.enable_mem_pattern = device != "cpu"  # a plan for every shape of a batch: megabytes that save no time
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(profile)
        if lone_surrogate(str(model)) is not None:
            raise BundleError(f"{model}: ONNX Runtime opens no path that is not UTF-8; rename the folder, or copy it")
        provider = PROVIDERS[device]
        chosen = provider if device == "cpu" else (provider, _cuda_options(gpu_mem_limit))
        try:
            rewritten = with_kernels(model, shape.head_dim) if device == "cpu" else None
            if rewritten is not None:
                options.register_custom_ops_library(str(rewritten.library))
                options.add_session_config_entry(WEIGHTS_FOLDER, str(model.parent))
                self._weights = {name: _held(values) for name, values in rewritten.weights.items()}
                for name, weights in self._weights.items():
                    options.add_initializer(name, weights)
            # Without enable_fallback=0 a failing GPU makes ONNX Runtime print to standard output and go on on the CPU.
            self._session = ort.InferenceSession(
                str(model) if rewritten is None else rewritten.model, options, providers=[chosen], enable_fallback=0
            )
        except Exception as error:  # ONNX Runtime raises a class per status code, all direct children of Exception
            reason = _reason(error)
            if device != "cpu":
                raise _not_initialised(device, reason) from error
            raise BundleError(f"{model}: ONNX Runtime cannot load the graph ({reason}); {REBUILD}") from error
        if self._session.get_providers()[0] != provider:
            raise _not_initialised(device, "no usable GPU, or CUDA and cuDNN are not installed")
        self.shape = shape
        self.device = device
        self.runs_on = device if rewritten is None else rewritten.runs_on
        """the device, and whether with kernels: scores differ"""
        self._extends = rewritten is not None and rewritten.extends
        self._model = model
        self._check_inputs(model)
        self._check_outputs(model)

    def _check_outputs(self, model: Path) -> None:
        for node in self._session.get_outputs():
            if node.name in ("score", *self.shape.outputs) and node.type != "tensor(float)":
                raise BundleError(f"{model}: its output `{node.name}` is a {node.type}, not float32; {REBUILD}")

    def _check_inputs(self, model: Path) -> None:
        shape = self.shape
        found = {node.name: node.shape for node in self._session.get_inputs()}
        # The first dimension is 1 and the third, P, is free.
        sizes = [found[name][1::2] for name in shape.inputs if name in found]
        expected = [[shape.kv_heads, shape.head_dim]] * (2 * shape.blocks)
        if (
            found.keys() - ({EXTEND} if self._extends else set()) != {"tokens", "last", *shape.inputs}
            or sizes != expected
        ):
            raise BundleError(
                f"{model}: the inputs are not those of {shape.blocks} blocks with {shape.kv_heads} key/value heads "
                f"of size {shape.head_dim}, which the bundle records; {REBUILD}"
            )

    def use_huge_pages(self) -> None:
        """Move weights, and what batches have taken so far, into huge pages, on a CPU and where there are any."""
        if self.device == "cpu":
            self._memory.use_huge_pages()

    def end_profile(self) -> Path:
        """Stop the profile that `profile` began, and return its file: ONNX Runtime's trace events as JSON."""
        return Path(self._session.end_profiling())

    @property
    def nothing(self) -> Past:
        """The past of a row that nothing stands before."""
        empty = np.zeros((1, self.shape.kv_heads, 0, self.shape.head_dim), np.float32)
        return dict.fromkeys(self.shape.inputs, _held(empty))

    def prefix(self, tokens: Sequence[int]) -> Past:
        """Keys and values of a prefix of P token ids, computed by the graph itself with nothing before it."""
        return self.extend(self.nothing, [tokens])[0]

    def extend(self, past: Past, beginnings: Sequence[Sequence[int]]) -> list[Past]:
        """For every beginning, token ids after `past`, the past of a row that goes on from there.

        One run for all on a CPU. On a GPU one each, whose results stay where they are: the past of one row of several
        could only be cut out on the host.
        """
        if not any(beginnings):
            return [past] * len(beginnings)
        if self.device != "cpu" and len(beginnings) > 1:
            return [self.extend(past, [beginning])[0] for beginning in beginnings]
        tokens, last = pad(beginnings)
        present = self._run(past, tokens, last.clip(min=0), self.shape.outputs, self.device, ONLY_FETCHED)
        if len(beginnings) == 1:
            return [dict(zip(self.shape.inputs, present, strict=True))]
        before = past[self.shape.inputs[0]].shape()[2]
        arrays = [values.numpy() for values in present]
        return [
            {
                name: _held(values[row : row + 1, :, : before + len(beginning)])
                for name, values in zip(self.shape.inputs, arrays, strict=True)
            }
            for row, beginning in enumerate(beginnings)
        ]

    def scores(self, past: Past, bodies: Sequence[Sequence[int]]) -> list[float]:
        """The scores of rows, given as token ids after `past`, in one run.

        Raises MemoryError when there is none left, and BundleError when the graph does not give each row a number.
        """
        tokens, last = pad(bodies)
        (scores,) = self.run(past, tokens, last)
        if scores.shape != last.shape:
            raise BundleError(
                f"{self._model}: the graph gave scores of shape {list(scores.shape)} for {len(bodies)} rows; {REBUILD}"
            )
        return [float(score) for score in scores]

    def run(
        self, past: Past, tokens: NDArray[np.int64], last: NDArray[np.int64], outputs: Sequence[str] = ("score",)
    ) -> list[NDArray[Any]]:
        """The named outputs for tokens [B, S], read at position `last` [B], after a prefix."""
        return [values.numpy() for values in self._run(past, tokens, last, outputs, "cpu", None)]

    def _run(
        self,
        past: Past,
        tokens: NDArray[np.int64],
        last: NDArray[np.int64],
        outputs: Sequence[str],
        to: str,
        options: ort.RunOptions | None,
    ) -> list[ort.OrtValue]:
        """The named outputs in the memory of device `to`; the past is read where it lies, for all rows together.

        Raises MemoryError when there is none left, and BundleError when the graph cannot do what it says.
        """
        try:
            binding = self._session.io_binding()
            binding.bind_cpu_input("tokens", tokens)
            binding.bind_cpu_input("last", last)
            if self._extends:
                binding.bind_cpu_input(EXTEND, np.array([len(outputs) > 1]))
            for name, values in past.items():
                binding.bind_ortvalue_input(name, values)
            for name in outputs:
                binding.bind_output(name, to)
            self._session.run_with_iobinding(binding, options)
            return list(binding.get_outputs())
        except Exception as error:  # as when the graph is loaded: no common class
            reason = _reason(error)
            raise BundleError(f"{self._model}: the graph failed ({reason}); {REBUILD}") from error


def open_graph(
    model: Path,
    shape: KeyValueShape,
    precision: str,
    requested: str,
    threads: int = 1,
    gpu_mem_limit: int | None = None,
) -> Graph:
    """A graph on the requested device, or for "auto" on a GPU where one can be used and else on the CPU.

    Raises DeviceError when cuda is requested and cannot be used, UsageError for a device of another name, and
    BundleError as `Graph` does.
    """
    device = pick_device(requested, precision)
    try:
        return Graph(model, shape, device, threads, gpu_mem_limit=gpu_mem_limit)
    except DeviceError:
        if requested != "auto":
            raise
        # The GPU build of ONNX Runtime offers CUDA on machines without a usable GPU, too.
        return Graph(model, shape, "cpu", threads)


def _held(values: NDArray[Any]) -> ort.OrtValue:
    """An array as ONNX Runtime takes it, in the memory of the host."""
    return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values))


def _cuda_options(limit: int | None) -> dict[str, str]:
    """Memory is taken as it is needed and not in powers of two, so that what is free can be told."""
    options = {"arena_extend_strategy": "kSameAsRequested"}
    return options if limit is None else options | {"gpu_mem_limit": str(limit)}


def _reason(error: Exception) -> str:
    """What ONNX Runtime says, in one line. Raises MemoryError when that is that there is no memory left."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, MemoryError) or any(sign in reason.lower() for sign in OUT_OF_MEMORY):
        raise MemoryError(reason) from error
    return reason


def _not_initialised(device: str, reason: str) -> DeviceError:
    return DeviceError(f"--device {device}: could not be initialised ({reason}); use --device cpu")


def pad(bodies: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Token ids as `tokens` [B, S], padded on the right with 0 (never read: attention is causal), and `last` [B]."""
    lengths = np.array([len(body) for body in bodies], np.int64)
    tokens = np.zeros((len(bodies), int(lengths.max())), np.int64)
    for row, body in enumerate(bodies):
        tokens[row, : len(body)] = body
    return tokens, lengths - 1
