"""Output that ends nothing when nobody reads it any more, and steers no terminal."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import click

from pyg_lth.errors import printable


class Unbreakable:
    """A stream that drops what can no longer be written.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, if it can be."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Flush, if it can be."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._drop()

    def _drop(self) -> None:
        """Let what is still to come, at the end of the process too, go nowhere."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def unbreakable_output() -> Iterator[None]:
    """Let neither a dead or closed stdout or stderr nor a name that is no text end the block."""
    for number in range(3):
        # A file opened later must not become one of the three.
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: PTH123, SIM115
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
        setattr(sys, name, Unbreakable(stream))
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before


def say(text: object, err: bool = False, nl: bool = True, bold: bool = False) -> None:
    """Print words, in which names may hold what steers a terminal, on stdout or stderr."""
    escaped = printable(str(text))
    click.echo(click.style(escaped, bold=True) if bold else escaped, err=err, nl=nl)


def hand_out(text: str) -> None:
    """Print data on stdout: as they are, but on a terminal without what steers it."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)


def shell(*words: object) -> str:
    """A command line that a shell reads as these words, whatever is in them."""
    return " ".join(map(_quoted, map(str, words)))


def _quoted(word: str) -> str:
    if word == printable(word) and "\n" not in word:
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
