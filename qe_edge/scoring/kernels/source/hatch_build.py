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
FLAGS = (
    *("-std=c++17", "-O3", "-shared", "-fPIC"),
    *("-fvisibility=hidden", "-fno-exceptions", "-fno-rtti", "-fno-threadsafe-statics"),
)
LIBRARIES = {
    "x86-64-v3.so": ("-march=x86-64-v3",),
    "x86-64-v4.so": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
}
"""for each kind of processor, and what the compiler is told of it"""
WHEEL_TAG = "py3-none-linux_x86_64"


class KernelsBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own examples leave it open
    """Adds the libraries to a wheel, or puts them into the checkout for an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        libraries = [SOURCE.parent / name for name in LIBRARIES]
        for library in libraries:
            library.unlink(missing_ok=True)
        compiler = os.environ.get("CXX", "c++").split()
        if sys.platform != "linux" or platform.machine() != "x86_64" or shutil.which(compiler[0]) is None:
            self.app.display_warning(
                f"no kernels: they need Linux on x86-64 and a C++ compiler ({compiler[0]}, or CXX)"
            )
            return
        for library in libraries:
            command = [*compiler, *FLAGS, *LIBRARIES[library.name], str(SOURCE / "library.cpp"), "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                self.app.display_warning(f"no kernels for {library.stem}: {compiler[0]} failed\n{done.stderr}")
                continue
            build_data["artifacts"].append(str(library.relative_to(self.root)))
            build_data["pure_python"] = False
            build_data["tag"] = WHEEL_TAG
