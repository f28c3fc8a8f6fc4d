"""What this machine has to compute with."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")
CPU_FACTS = Path("/proc/cpuinfo")
QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""what a container may use: microseconds of processor time in a period, or max"""


def usable_cpus() -> set[int]:
    """Numbers of the logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def physical_cores() -> int:
    """Cores that this process may run on; two hardware threads of a core share its matrix units and count once.

    Where the system does not say which threads share a core (Linux does), every logical processor counts. Not more than
    a container's quota of processor time.
    """
    cores = set()
    for cpu in usable_cpus():
        siblings = TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        cores.add(siblings.read_text(encoding="ascii").strip() if siblings.exists() else str(cpu))
    return max(1, min(len(cores), _quota()))


def _quota() -> int:
    """Processors that a container may use at once."""
    granted, _, period = QUOTA.read_text(encoding="ascii").partition(" ") if QUOTA.exists() else ("max", "", "")
    return sys.maxsize if granted == "max" else -(-int(granted) // int(period))


def machine_name() -> str:
    """Processor and number of usable cores, e.g. "AMD EPYC, 2 cores": what a tuning was measured on."""
    model = platform.processor() or platform.machine()
    if CPU_FACTS.exists():
        lines = CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {physical_cores()} cores"
