"""Compiles the kernels when qe-edge is built or installed, where that is possible: Linux on x86-64 with a C++ compiler.

Elsewhere the wheel has none, and scoring runs ONNX Runtime's own operators.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).resolve().parent
LIBRARY = SOURCE.parent / "x86-64-v4.so"
FLAGS = (
    *("-std=c++17", "-O3", "-march=x86-64-v4", "-mprefer-vector-width=512"),
    *("-shared", "-fPIC", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"),
)
WHEEL_TAG = "py3-none-linux_x86_64"


class KernelsBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own examples leave it open
    """Adds the library to a wheel, or puts it into the checkout for an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        LIBRARY.unlink(missing_ok=True)
        compiler = os.environ.get("CXX", "c++").split()
        if sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which(compiler[0]) is None:
            self.app.display_warning(
                f"no kernels: they need Linux on x86-64 and a C++ compiler ({compiler[0]}, or CXX)"
            )
            return
        command = [*compiler, *FLAGS, str(SOURCE / "library.cpp"), "-o", str(LIBRARY)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.app.display_warning(f"no kernels: {compiler[0]} failed\n{done.stderr}")
            return
        build_data["artifacts"].append(str(LIBRARY.relative_to(self.root)))
        build_data["pure_python"] = False
        build_data["tag"] = WHEEL_TAG
