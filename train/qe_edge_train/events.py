"""Figures over steps for TensorBoard."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]


class EventFile:
    """A new event file in a folder, which is made if it is not there.

    It is written at once, in the thread that calls: torch's SummaryWriter has a thread of its own, in which a full disk
    is a traceback. Raises OSError when it cannot be written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        """first_step: earlier events of this step and later ones, of an interrupted session, are not shown."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self._records = RecordWriter((folder / name).open("wb"))
        self._add(file_version="brain.Event:2")
        self._add(step=first_step, session_log=SessionLog(status=SessionLog.START))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Add one figure."""
        self._add(step=step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))

    def close(self) -> None:
        """Close the file."""
        self._records.close()

    def _add(self, **content: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **content).SerializeToString())
        self._records.flush()
