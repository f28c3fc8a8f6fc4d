"""Every error a user can cause: one line with the place, the value and the remedy, and a documented exit code."""

from __future__ import annotations


class QeEdgeError(Exception):
    """Base of all errors of qe-edge. `str(error)` is the one line that the command line prints.

    `exit_code` is the status a command ends with (docs/scoring.md).
    """

    exit_code = 1


class UsageError(QeEdgeError):
    """An option or a combination of options that cannot work."""

    exit_code = 2


class InputError(QeEdgeError):
    """A table, text file or recipe that cannot be used as it is."""

    exit_code = 3


class OutputError(QeEdgeError):
    """The output cannot be written."""

    exit_code = 5


class BundleError(QeEdgeError):
    """A bundle that is missing, damaged, tampered with or of another format version."""

    exit_code = 6


class DeviceError(QeEdgeError):
    """A requested device or execution provider that this machine does not offer."""

    exit_code = 7


class GateError(QeEdgeError):
    """An export whose scores differ from the trained model's by more than the stated bound."""

    exit_code = 8


class MissingExtraError(QeEdgeError):
    """A command needs packages that a plain install leaves out."""

    exit_code = 9


class OutOfMemoryError(QeEdgeError):
    """Less memory than the command needs, whatever it is run on."""

    exit_code = 10


# A run that finished, with every row written, but in which some rows could not be read or scored (status `invalid`).
EXIT_INVALID_ROWS = 4


def one_line(text: str) -> str:
    """With what a terminal would obey, or a line would break at, escaped: names of files may hold anything."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
