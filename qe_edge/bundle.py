"""What a bundle contains: the one contract between export, which writes it, and the runtime, which verifies it.

A bundle is a folder: `bundle.json`, `model.onnx` with its weights, `tokenizer.json`. Nothing in it is executable and
no path leaves the folder.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from reprlib import repr as shortened
from types import UnionType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from qe_edge.errors import BundleError, InputError
from qe_edge.prompt import Prompt
from qe_edge.verification.files import check_plain, read_bounded
from qe_edge.verification.model import check_model
from qe_edge.verification.record import RECORD_BYTES, RECORD_CONTAINERS, check_record
from qe_edge.verification.strict_json import parse_json
from qe_edge.verification.tokenizer import check_tokenizer

FORMAT_VERSION = 1
SPEC_FILE = "bundle.json"
MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
TOKENIZER_FILE = "tokenizer.json"
PAYLOAD = (MODEL_FILE, WEIGHTS_FILE, TOKENIZER_FILE)
EMBEDDED_BUNDLE = Path(__file__).parent / "bundles" / "smollm2-135m-mlqe"
"""The bundle that comes with the package."""
PRECISIONS = ("fp32", "fp16", "w8a8", "w4a8", "int8", "int4")

REBUILD = "export the bundle again or fetch a fresh copy"


@dataclass(frozen=True)
class BundleSpec:
    """The contents of `bundle.json`.

    Graph contract (B rows, S body tokens, P prefix tokens, L blocks, G key/value heads, D head size):
    inputs `tokens` int64 [B, S], `last` int64 [B] (index of each row's last real token in `tokens`),
    `past_key_i`, `past_value_i` float32 [1, G, P, D] for i < L; outputs `score` float32 [B] on the score scale,
    `present_key_i`, `present_value_i` float32 [B, G, P + S, D]. Rows are padded on the right with any id.
    The prefix of a language pair is computed by the same graph with P = 0, B = 1.
    """

    format_version: int
    """version of this contract; the runtime refuses others"""
    name: str
    """name of the bundle, part of the signature"""
    base_model: str
    """the decoder it was trained from"""
    base_family: str
    """`model_type` of the base's configuration, e.g. llama"""
    licence: str
    """SPDX id or name of the licence that the base puts on the weights"""
    data: list[str]
    """names of the training data"""
    strategy: str
    """how taps are read: single, dynamic or multi (docs/training.md)"""
    taps: list[int]
    """k of every TL-k tap read"""
    blocks_kept: int
    """decoder blocks in the graph"""
    blocks_total: int
    """decoder blocks of the base"""
    kv_heads: int
    """key/value heads of a block"""
    head_dim: int
    """size of an attention head"""
    prompt: str
    """template: a text field for each column that is read ({src} and {mt} for translations), perhaps {sl} and {tl}"""
    bos: int | None
    """token id before every prompt, or none"""
    token_limit: int
    """most tokens of a prompt, prefix included; longer texts are shortened"""
    language_pairs: list[str]
    """pairs trained on, as et-en; none where the prompt names no language"""
    score_scale: str
    """what the number means, e.g. DA 0-100"""
    precision: str
    """one of PRECISIONS"""
    gate: dict[str, Any]
    """parity figures measured at export (docs/bundle.md)"""
    metrics: dict[str, Any]
    """dev metrics of the trained model, per language pair"""
    created_with: dict[str, str]
    """versions of qe-edge and of the packages that wrote the bundle"""
    files: dict[str, str]
    """sha256 of every file but bundle.json"""
    full_blocks: int = 0
    """blocks that run on every token, those above on a row's last position alone; 0: all run on every token"""

    @property
    def tap_label(self) -> str:
        """E.g. "TL-11", or "TL-11+TL-7" for several taps."""
        return "+".join(f"TL-{tap}" for tap in self.taps)


@dataclass(frozen=True)
class Bundle:
    """A verified bundle on disk. Construct it with `open_bundle`."""

    folder: Path
    spec: BundleSpec
    digest: str
    """first 12 hex digits of the sha256 of bundle.json, which holds the hashes of all other files"""

    @property
    def prompt(self) -> Prompt:
        """The prompt that was trained, which also says what a row is."""
        return Prompt(self.spec.prompt)

    @property
    def model(self) -> Path:
        return self.folder / MODEL_FILE

    @property
    def tokenizer(self) -> Path:
        return self.folder / TOKENIZER_FILE

    @property
    def size(self) -> int:
        """Bytes on disk of the whole bundle."""
        return sum((self.folder / name).stat().st_size for name in (SPEC_FILE, *self.spec.files))


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Check(NamedTuple):
    """One check that a bundle has passed."""

    subject: str
    """what was checked: a file of the bundle, or all of them"""
    found: str
    """what was found, in a line"""


def open_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle; nothing is run yet.

    Verified are the format version, all fields with their types and bounds, the hash of every file, and that graph and
    tokenizer hold nothing that could hurt the machine (docs/bundle.md). Raises BundleError naming the file that is
    missing, unreadable, different from what `bundle.json` records, or unsafe.
    """
    return verify_bundle(folder)[0]


def verify_bundle(folder: Path) -> tuple[Bundle, list[Check]]:
    """As `open_bundle`, with what was checked and found."""
    try:
        return _verify(folder)
    except OSError as error:
        place = error.filename or folder
        raise BundleError(
            f"{place}: cannot be read ({error.strerror}); check its permissions, its name and the disk"
        ) from None


def _verify(folder: Path) -> tuple[Bundle, list[Check]]:
    spec_path = folder / SPEC_FILE
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such bundle folder; give the folder that holds {SPEC_FILE}")
    if not spec_path.exists() and not spec_path.is_symlink():
        raise BundleError(f"{spec_path}: missing; {folder} is not a bundle, {REBUILD}")
    raw = read_bounded(spec_path, RECORD_BYTES)
    bundle = Bundle(folder, _parse_spec(raw, spec_path), hashlib.sha256(raw).hexdigest()[:12])
    for name in PAYLOAD:
        _verify_file(folder / name, bundle.spec.files[name])
    return bundle, [
        Check(SPEC_FILE, f"format version {FORMAT_VERSION}, all fields there and within their bounds"),
        Check("files", f"{', '.join(PAYLOAD)}: plain files with the recorded sha256"),
        Check(MODEL_FILE, check_model(bundle.model, folder / WEIGHTS_FILE)),
        Check(TOKENIZER_FILE, check_tokenizer(bundle.tokenizer)),
    ]


def write_spec(folder: Path, spec: BundleSpec) -> None:
    """Write `bundle.json`, the last file of an export."""
    text = json.dumps(asdict(spec), ensure_ascii=False, indent=2) + "\n"
    (folder / SPEC_FILE).write_text(text, encoding="utf-8")


def _parse_spec(raw: bytes, path: Path) -> BundleSpec:
    content = parse_json(raw, path, RECORD_CONTAINERS)
    if not isinstance(content, dict):
        raise BundleError(f"{path}: a JSON object is expected; {REBUILD}")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: format version {shortened(version)}, this qe-edge reads {FORMAT_VERSION}; "
            "use the qe-edge that wrote it or export the bundle again"
        )
    names = {field.name for field in fields(BundleSpec)}
    needed = {field.name for field in fields(BundleSpec) if field.default is MISSING}
    if odd := sorted((needed - content.keys()) | (content.keys() - names)):
        raise BundleError(f"{path}: missing or unknown fields: {shortened(odd)}; {REBUILD}")
    kinds = get_type_hints(BundleSpec)
    for field in fields(BundleSpec):
        value = content.setdefault(field.name, field.default)
        if not _is_a(value, kinds[field.name]):
            raise BundleError(f"{path}: `{field.name}` must be {field.type}, not {shortened(value)}; {REBUILD}")
    check_record(content, path)
    if set(content["files"]) != set(PAYLOAD):
        raise BundleError(f"{path}: `files` must name exactly {', '.join(PAYLOAD)}; {REBUILD}")
    if content["precision"] not in PRECISIONS:
        raise BundleError(
            f"{path}: unknown precision {shortened(content['precision'])}, known: {', '.join(PRECISIONS)}"
        )
    try:
        Prompt(content["prompt"])
    except InputError as error:
        raise BundleError(f"{path}: `prompt`: {error}; {REBUILD}") from None
    return BundleSpec(**content)


def _is_a(value: object, kind: Any) -> bool:
    """Whether a JSON value has the type that a field of BundleSpec declares."""
    if kind is Any:
        return True
    inner = get_args(kind)
    if get_origin(kind) is UnionType:
        return any(_is_a(value, one) for one in inner)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is_a(item, inner[0]) for item in value)
    if get_origin(kind) is dict:  # the names in a JSON object are always strings
        return isinstance(value, dict) and all(_is_a(item, inner[1]) for item in value.values())
    return type(value) is kind  # isinstance would take true for an int


def _verify_file(path: Path, expected: str) -> None:
    check_plain(path)
    found = file_sha256(path)
    if found != expected:
        raise BundleError(f"{path}: sha256 {found[:12]}… differs from the recorded {expected[:12]}…; {REBUILD}")
