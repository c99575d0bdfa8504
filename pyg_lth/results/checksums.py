"""The checksums of a folder: what each of its files must be, noted before it is written.

``checksums.txt`` has a line for each write: the line's own CRC-32, then the SHA-256 and the size of
what the file will hold, the size that it is appended to (-1 where it is written anew) and its name.
Since a line is there before the file is, a process that is killed in between leaves a file as an
earlier line has it, which is accepted.
"""

import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyg_lth import whole_files
from pyg_lth.errors import InputError

NAME = "checksums.txt"

# Stands for the size of a file that was removed.
REMOVED = -1


class Damaged(InputError):
    """A file of a run that is not what was written, or is not there.

    Args:
        path: The file.
        reason: What is wrong.
        remedy: What can be recovered.
    """

    def __init__(self, path: Path, reason: str, remedy: str):
        super().__init__(f"{path} is damaged: {reason}; {remedy}")
        self.path = path


class Entry(NamedTuple):
    """A state of a file: its checksum, its size, and the size that it was appended to."""

    sha256: str
    size: int
    before: int


class Checksums:
    """The checksums of a folder and below.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._path = folder / NAME
        self._entries: dict[str, list[Entry]] | None = None
        self._last = ""
        self._writes = False
        # Of each file that grows, the hash of what it holds so far and its size.
        self._growing: dict[str, tuple[Any, int]] = {}

    def write(self, path: Path, content: bytes) -> None:
        """Note the checksum of a file, then write it.

        Raises:
            InputError: If it cannot be written.
        """
        if self._growing.pop(self._name(path), None) is None and path.exists():
            with contextlib.suppress(Damaged):
                self._cut(path)
        self._note(path, Entry(hashlib.sha256(content).hexdigest(), len(content), -1))
        whole_files.write(path, content)

    def append(self, path: Path, content: bytes) -> None:
        """Note the checksum of a file with something added to it, then add it.

        Raises:
            Damaged: If the file is.
            InputError: If it cannot be written.
        """
        name = self._name(path)
        if name not in self._growing:
            kept = self._cut(path) if path.exists() else b""
            self._growing[name] = hashlib.sha256(kept), len(kept)
        digest, size = self._growing[name]
        digest.update(content)
        end = size + len(content)
        self._note(path, Entry(digest.hexdigest(), end, size))
        with whole_files.writing(path), path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._growing[name] = digest, end

    def remove(self, path: Path) -> None:
        """Note that a file is no longer wanted, then remove it."""
        if path.exists() or self._known(path):
            self._note(path, Entry("-", REMOVED, -1))
            path.unlink(missing_ok=True)

    def settle(self) -> None:
        """Note that what a killed process was about to write is not there."""
        self._load()
        path = self._folder / self._last
        if self._last and not path.exists() and self._known(path)[-1].size != REMOVED:
            self._note(path, Entry("-", REMOVED, -1))

    def _cut(self, path: Path) -> bytes:
        """Drop what a killed process has added in part; return the rest."""
        content = self.read(path)
        if len(content) < path.stat().st_size:
            os.truncate(path, len(content))
        return content

    def read(self, path: Path) -> bytes:
        """Read a file and hold it against its checksum, if it has one.

        Returns:
            Its content, without what a killed process has added in part.

        Raises:
            Damaged: If it is not what was written, or there is nothing.
        """
        for attempt in range(3):
            # It may have been written again since the checksums were read.
            if attempt:
                self._entries = None
            if not path.exists():
                if not self._known(path):
                    raise Damaged(path, "it is missing", self.remedy(path))
                continue
            content = whole_files.read(path)
            known = self._known(path)
            if not known:
                return content
            size = _matching(content, known)
            if size is not None:
                return content[:size]
        reason = "its checksum does not match" if path.exists() else "it is missing"
        raise Damaged(path, reason, self.remedy(path))

    def has(self, path: Path) -> bool:
        """Whether there is a checksum to hold a file against."""
        return bool(self._known(path))

    def there_or_missed(self, path: Path) -> bool:
        """Whether a file is there, or should be."""
        return path.exists() or self.expects(path)

    def expects(self, path: Path) -> bool:
        """Whether a file should be there."""
        known = self._known(path)
        # The last one that was noted may not have been written: its process was killed.
        return bool(known) and known[-1].size != REMOVED and self._name(path) != self._last

    def knows(self, path: Path, content: bytes) -> bool:
        """Whether a file once held this content."""
        found = hashlib.sha256(content).hexdigest()
        return any(entry.sha256 == found for entry in self._known(path))

    def missing(self) -> list[Path]:
        """Files that were written, never removed, and are not there."""
        paths = [self._folder / name for name in self._load()]
        return [path for path in paths if self.expects(path) and not path.exists()]

    def _known(self, path: Path) -> list[Entry]:
        return self._load().get(self._name(path), [])

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    def _load(self) -> dict[str, list[Entry]]:
        if self._entries is None:
            self._entries = {}
            for name, entry in self._lines():
                self._entries.setdefault(name, []).append(entry)
                self._last = name
        return self._entries

    def _lines(self) -> Iterator[tuple[str, Entry]]:
        if not self._path.exists():
            return
        *lines, rest = whole_files.read(self._path).split(b"\n")
        # A line that a killed process wrote in part is none; a whole one lacks but its end.
        if len(rest) > 8 and _is_whole(rest[:-1]):
            lines.append(rest)
        for number, line in enumerate(lines, start=1):
            if not _is_whole(line):
                remedy = "delete it to go on without the checksums of what was written before"
                raise Damaged(self._path, f"line {number} does not match its own checksum", remedy)
            sha256, size, before, name = line[9:].decode().split(" ", 3)
            yield name, Entry(sha256, int(size), int(before))

    def _note(self, path: Path, entry: Entry) -> None:
        known = self._load()
        name = self._name(path)
        body = f"{entry.sha256} {entry.size} {entry.before} {name}".encode()
        line = b"%08x %s\n" % (zlib.crc32(body), body)
        with whole_files.writing(self._path):
            self._folder.mkdir(parents=True, exist_ok=True)
            if not self._writes and self._path.exists():
                _drop_unfinished_line(self._path)
            self._writes = True
            with self._path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        known.setdefault(name, []).append(entry)
        self._last = name

    def remedy(self, path: Path) -> str:
        """What can be recovered of a damaged file."""
        name = self._name(path)
        first = name.split("/")[0]
        again = f"continue the run in {self._folder} with `resume`"
        if path.name in ("auxiliary.safetensors", "scout.safetensors"):
            return f"{again}, which trains it again if a round to come needs it"
        if first.startswith("round-"):
            return f"{again}, which does round {int(first[6:])} again and keeps the others"
        if first == "state":
            return f"{again}, which trains that round again from its start"
        if first == "figures":
            return f"{again}, which deletes it; `pyg-lth plot` draws it again"
        data = f"{again} and its data: name them as `dataset`, or give the graph"
        return {
            "graph.safetensors": data,
            "data.json": data,
            "config.json": f"{again} and the settings of report.json, or bring back a copy",
            "report.html": f"{again}, which deletes it; `pyg-lth report --html` writes it again",
            "frontier.json": "`pyg-lth compare --by bytes` measures it again",
            "environment.json": "bring it back from a copy, or begin a new run: the rounds remain",
            "theta0.safetensors": f"{again}, which draws it again and compares the checksum",
            "late.safetensors": f"{again}, which does round 0 again and keeps the others",
            "epochs.jsonl": f"{again}, which sets it aside: the learning curves so far are lost",
        }.get(name, f"{again}, which writes it again from the rounds")


def _is_whole(line: bytes) -> bool:
    return line[8:9] == b" " and line[:8] == b"%08x" % zlib.crc32(line[9:])


def _drop_unfinished_line(path: Path) -> None:
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        os.truncate(path, end)


def _matching(content: bytes, entries: list[Entry]) -> int | None:
    """How much of a content is as it was written; :obj:`None` where it is damaged."""
    last = entries[-1]
    if last.before >= 0:
        # Before the last addition, or in the middle of it.
        size = last.size if len(content) >= last.size else last.before
        wanted = [entry for entry in entries if entry.size == size]
        whole = len(content) <= last.size
    else:
        size, wanted, whole = len(content), entries, True
    found = hashlib.sha256(content[:size]).hexdigest()
    return size if whole and any(found == entry.sha256 for entry in wanted) else None
