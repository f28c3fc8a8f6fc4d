"""Which linear layers stay in float32: the most harmful ones first, and no more of them than the gate asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

from qe_edge.errors import GateError, UsageError

Keep = int | Literal["auto"]
"""How many layers stay in float32; "auto": as many as the gate asks for."""
Kept = Mapping[str, float]
"""Layers that stay in float32, by name -> the error of the tapped states when that layer alone is quantised."""
Result = TypeVar("Result")


def parse_keep(text: str) -> Keep:
    """The value of --keep-layers. Raises UsageError unless it is "auto" or a whole number from 0."""
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise UsageError(f"--keep-layers {text}: give a whole number of layers, or auto for as many as the gate needs")
    return int(text)


def keep_most_harmful(
    keep: Keep, attempt: Callable[[Kept], Result], measure: Callable[[], Kept], report: Callable[[str], None]
) -> Result:
    """What `attempt` gives with the `keep` most harmful layers in float32.

    "auto" tries none, then 1, 2, 4 and so on up to half of all layers, until `attempt` raises no GateError.
    measure: the error of every layer, asked for only when one has to stay. Raises the last GateError when
    nothing helps, and UsageError for more layers than there are.
    """
    if keep == 0:
        return attempt({})
    if keep == "auto":
        try:
            return attempt({})
        except GateError as error:
            report(_reason(error))
    report("measuring what each linear layer does to the tapped states")
    harm = measure()
    ranked = sorted(harm, key=lambda name: (-harm[name], name))
    if isinstance(keep, int) and keep > len(ranked):
        raise UsageError(f"--keep-layers {keep}: the model has {len(ranked)} linear layers; give fewer")
    counts = [keep] if isinstance(keep, int) else [1 << n for n in range((len(ranked) // 2).bit_length())]

    def keeping(count: int) -> Result:
        report(f"{count} of {len(ranked)} linear layers stay in float32, down to {ranked[count - 1]}")
        return attempt({name: harm[name] for name in ranked[:count]})

    for count in counts[:-1]:
        try:
            return keeping(count)
        except GateError as error:
            report(_reason(error))
    return keeping(counts[-1])


def _reason(error: GateError) -> str:
    """What the gate found, without its remedy."""
    return str(error).partition(";")[0]
