"""The run folder: one owner at a time, every file whole or absent, resumable at any moment."""

import contextlib
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import filelock
import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from pyg_lth import whole_files
from pyg_lth.config import BEFORE, PruneConfig, TrainConfig, completed
from pyg_lth.errors import FolderInUse, InputError, RunWarning
from pyg_lth.interactions import InteractionSplit
from pyg_lth.nn.backbones import TABLE, Weights
from pyg_lth.pruning.masks import Mask
from pyg_lth.results.checksums import NAME as CHECKSUMS
from pyg_lth.results.checksums import Checksums, Damaged
from pyg_lth.results.environment import describe_environment, differences
from pyg_lth.results.kept_settings import read_kept_settings
from pyg_lth.results.report import Report, RoundResult
from pyg_lth.results.shards import (
    SHARDS,
    Shard,
    drop_shards,
    is_shard,
    listed_by,
    shards_of,
    tables_in,
)
from pyg_lth.results.text import to_markdown
from pyg_lth.training.progress import EpochRecord, Progress
from pyg_lth.training.trainer import Training
from pyg_lth.workers import ALONE, Workers

Model = TypeVar("Model", bound=BaseModel)

# The training of a round, or one that only finds a mask.
Stage = Literal["training", "auxiliary"]

# The files at the top of the folder; those below are known by their folders.
OF_A_RUN = (
    *("config.json", "environment.json", "report.json", "report.md", "rounds.jsonl"),
    *("epochs.jsonl", "theta0.safetensors", "late.safetensors"),
    *("graph.safetensors", "data.json"),
    *("report.html", "frontier.json"),
)

# Those of a finished round.
OF_A_ROUND = ("mask.safetensors", "best.safetensors", "users.safetensors")

# Those of the run that a user asked for, and may delete.
ASKED_FOR = ("report.html", "frontier.json")

# What an auxiliary training came to, the second as older code called it.
AUXILIARY = ("auxiliary.safetensors", "scout.safetensors")

Ids = Sequence[int | str] | npt.NDArray[Any]

MASK = "mask"
GRAPH = "graph.safetensors"
DATA = "data.json"


class Data(NamedTuple):
    """The data of a run.

    Args:
        split: Its graph, before anything is held out of it.
        user_ids: The original id of each user; :obj:`None` where that is the index.
        item_ids: The original id of each item, likewise.
        notes: What reading the data merged, dropped or left out, a line for each kind.
    """

    split: InteractionSplit
    user_ids: Ids | None = None
    item_ids: Ids | None = None
    notes: Sequence[str] = ()


class RunFolder:
    """The files of one run (design, Section 5).

    Several workers share one on storage that all can reach. All of them call what writes, and the
    first does the writing, but for tables: each writes its columns in a file of its own.

    Args:
        path: The folder; made when the run is begun.
        workers: Who has which columns of the tables.
    """

    def __init__(self, path: str | Path, workers: Workers = ALONE):
        self.path = Path(path)
        self._workers = workers
        self._states: dict[Stage, Path] = {
            "training": self.path / "state" / "training.safetensors",
            "auxiliary": _auxiliary_file(self.path / "state"),
        }
        self._lock = filelock.FileLock(self.path / "state" / "lock")
        self._checksums = Checksums(self.path)

    def __enter__(self) -> "RunFolder":
        """Own the folder until the block ends or the process does.

        Raises:
            FolderInUse: If another process owns it.
            InputError: If it cannot be made.
        """
        self._by_first(self._acquire)
        # Another process may have written in the meantime.
        self._checksums = Checksums(self.path)
        return self

    def _acquire(self) -> None:
        with whole_files.writing(self.path / "state"):
            (self.path / "state").mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(blocking=False)
            except filelock.Timeout:
                raise FolderInUse(
                    f"{self.path} is in use by another process: wait for it, or choose another "
                    "folder"
                ) from None

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def _by_first(self, action: Callable[[], None]) -> None:
        """Let the first worker write something, and the others see it."""
        self._workers.by_first(action)
        if not self._workers.is_first:
            self._checksums = Checksums(self.path)

    def begin(
        self, config: dict[str, Any], fingerprint: str, resume: bool, data: Data | None = None
    ) -> None:
        """Claim the folder for a run of these settings on this graph.

        Args:
            config: The settings.
            fingerprint: Of the graph.
            resume: Whether to continue the run that the folder holds.
            data: What to keep of the data, so that the folder is enough to resume.

        Raises:
            InputError: If the folder holds a run and is not to be resumed, or holds none or
                another one and is.
        """
        self._by_first(lambda: self._begin(config, fingerprint, resume, data))

    def _begin(
        self, config: dict[str, Any], fingerprint: str, resume: bool, data: Data | None
    ) -> None:
        kept = self.path / "config.json"
        if not resume:
            if kept.exists():
                raise InputError(
                    f"{self.path} already holds a run: continue it with `resume`, or choose "
                    "another `run_dir`"
                )
            if self._has_round(0) or (self.path / "theta0.safetensors").exists():
                raise InputError(
                    f"{self.path} holds a run without its config.json: bring that back, continue "
                    "the run with `resume` if its report is there, or choose another `run_dir`"
                )
            workers = self._workers.size
            environment = {"graph": fingerprint, "workers": workers, **describe_environment()}
            self._write_json(self.path / "environment.json", environment)
            self._keep(data)
            self._write_json(kept, config)
            return
        self._restore_config()
        self._check_settings(config)
        environment = self.read_environment()
        if environment.get("graph") != fingerprint:
            raise InputError(
                f"the graph is not the one that {self.path} was begun with: bring that one back, "
                "or begin a new run"
            )
        refused, told = differences(environment)
        if refused:
            raise InputError(
                f"{self.path} was begun with {refused[0]}: what comes next would not go with what "
                "is there; install that version, or begin a new run"
            )
        if environment.get("workers", 1) != self._workers.size:
            told.append(
                f"workers {environment.get('workers', 1)}, and goes on with {self._workers.size}"
            )
        for difference in told:
            _warn(f"{self.path} was begun with {difference}: figures may differ in the last digits")
        begun = self.read_config()
        if begun.get("device") != config["device"]:
            _warn(
                f"{self.path} was begun with device {begun.get('device')}, and goes on with "
                f"{config['device']}: figures may differ in the last digits"
            )
            self._write_json(kept, {**begun, "device": config["device"]})
        self._repair()
        if self.of_refit().path.exists():
            self.of_refit()._repair()
        self._keep(data)

    def _restore_config(self) -> None:
        """Write ``config.json`` again if it is damaged and the report has the settings."""
        path = self.path / "config.json"
        try:
            self._checksums.read(path)
        except Damaged:
            self._write_json(path, self.read_config())
            _warn(f"{path} was damaged: it is written again with the settings of report.json")

    def _repair(self) -> None:
        """Take away what is damaged, so that it is done again."""
        for path in self.path.rglob(whole_files.TEMPORARY):
            path.unlink()
        damaged = self._damaged()
        if CHECKSUMS not in [error.path.name for error in damaged]:
            self._checksums.settle()
        for error in damaged:
            path = error.path
            name = path.relative_to(self.path).as_posix()
            if name in ("config.json", "environment.json", CHECKSUMS):
                raise error
            if name == "epochs.jsonl" and path.exists():
                path.replace(path.with_name("epochs.jsonl.damaged"))
            _warn(str(error).replace("`resume`", "--resume") + " (this is done now)")
            self._remove(path)
            if path.name == "late.safetensors":
                self._checksums.remove(self._round(0) / "result.json")
            if path.parent.name.startswith("round-") and path.name not in AUXILIARY:
                # Without its result a round is not done.
                self._checksums.remove(path.parent / "result.json")

    def _check_settings(self, given: dict[str, Any]) -> None:
        """Refuse settings other than the run's own; what is younger than the run has its default.

        Which data set it is, where one side does not say so, the graph's fingerprint tells.
        """
        own = self.read_settings().model_dump()
        kept = own | completed(self.read_config())
        unlike = [
            f"`{name}` is {kept.get(name)} there and {given.get(name)} here"
            # Where to compute is no part of what is computed.
            for name in sorted((own.keys() | given.keys()) - {"device"})
            if name in kept or name in PruneConfig.model_fields
            if kept.get(name) != given.get(name)
        ]
        if unlike:
            raise InputError(
                f"{self.path / 'config.json'} holds other settings than those given "
                f"({', '.join(unlike)}): leave them out to resume"
            )

    def _keep(self, data: Data | None) -> None:
        if data is None or (self.has_data and (self._data_folder / DATA).exists()):
            return
        split = data.split
        ids = {
            "user_ids": _own_ids(data.user_ids, split.num_users, "user_ids"),
            "item_ids": _own_ids(data.item_ids, split.num_items, "item_ids"),
        }
        about = {"directory": str(Path.cwd()), "notes": list(data.notes), **ids}
        self._write_json(self.path / DATA, about)
        self._write_tensors(self.path / GRAPH, split.to_tensors())

    @property
    def has_data(self) -> bool:
        """Whether the folder, or that of all seeds around it, keeps the graph of the run."""
        return (self._data_folder / GRAPH).exists()

    @property
    def _data_folder(self) -> Path:
        """Where graph and ids are: seeds share those in the folder around theirs."""
        own = (self.path / GRAPH).exists() or not self.path.name.startswith("seed-")
        return self.path if own else self.path.parent

    def read_data(self) -> Data:
        """The graph and the original ids that the run was begun with.

        Raises:
            InputError: If the folder keeps none, as those of older code do, or a damaged one.
        """
        if not self.has_data:
            raise InputError(
                f"{self.path} keeps no graph: give the data that it was begun with, as `dataset`"
            )
        if self._data_folder != self.path:
            return RunFolder(self._data_folder).read_data()
        path = self.path / GRAPH
        with self._readable(path):
            split = InteractionSplit.from_tensors(self._read_tensors(path))
        if split.fingerprint() != self.read_environment().get("graph"):
            raise InputError(f"{path} is damaged: it is not the graph that the run was begun with")
        kept = self._read_json(self.path / DATA)
        return Data(split, kept.get("user_ids"), kept.get("item_ids"), self.notes)

    @property
    def notes(self) -> list[str]:
        """What reading the data merged, dropped or left out; nothing of runs that keep no data.

        Raises:
            InputError: If the file is damaged.
        """
        if self._data_folder != self.path:
            return RunFolder(self._data_folder).notes
        path = self.path / DATA
        if not self._checksums.there_or_missed(path):
            return []
        kept = self._read_json(path).get("notes", [])
        return [str(note) for note in kept] if isinstance(kept, list) else []

    def locate(self, path: str) -> Path:
        """A path in the settings, seen from where the run was begun if it is there."""
        if self._data_folder != self.path:
            return RunFolder(self._data_folder).locate(path)
        kept = self.path / DATA
        begun_in = self._read_json(kept).get("directory", "") if kept.exists() else ""
        there = Path(begun_in, path)
        return there if there.exists() else Path(path)

    def read_settings(self) -> TrainConfig:
        """The settings of the run without those of its data set.

        Raises:
            InputError: If the folder holds no run.
        """
        kept = {**BEFORE, **self.read_config()}
        form = PruneConfig if "rounds" in kept else TrainConfig
        try:
            return form(**{name: kept[name] for name in form.model_fields if name in kept})
        except ValidationError as error:
            problem = error.errors()[0]
            name = " ".join(map(str, problem["loc"]))
            raise InputError(
                f"{self.path / 'config.json'} is damaged: {name} {problem['msg']}"
            ) from None

    def check(self) -> list[Damaged]:
        """Hold every file against its checksum.

        A file that is older than checksums is only read.

        Returns:
            What is wrong, a file each.

        Raises:
            InputError: If the folder holds no run.
        """
        if not self.begun and not (self.path / "report.json").exists():
            raise InputError(f"{self.path} holds no run: there is no config.json in it")
        refit = self.of_refit()
        return [*self._damaged(), *(refit._damaged() if refit.path.exists() else [])]

    def _damaged(self) -> list[Damaged]:
        found: list[Damaged] = []
        try:
            for path in self._checksums.missing():
                if path.name in ASKED_FOR:
                    continue
                finished = (path.parent / "result.json").exists()
                if path.parent == self.path or finished or path.name == "result.json":
                    found.append(Damaged(path, "it is missing", self._checksums.remedy(path)))
        except Damaged as error:
            return [error]
        known = {error.path for error in found}
        for result in sorted(self.path.glob("round-*/result.json")):
            # Of a run that is older than checksums nothing else says what should be there.
            for path in (result.with_name(name) for name in OF_A_ROUND):
                if path not in known and not path.exists():
                    found.append(Damaged(path, "it is missing", self._checksums.remedy(path)))
        for path in self.files():
            try:
                self._check(path)
            except Damaged as error:
                found.append(error)
            except InputError as error:
                found.append(Damaged(path, str(error), self._checksums.remedy(path)))
        return found

    def _check(self, path: Path) -> None:
        content = self._checksums.read(path)
        if path.suffix == ".safetensors":
            with self._readable(path):
                safetensors.torch.load(content)
            for shard in shards_of(content):
                self._read_shard(path, shard)
        elif path.suffix == ".json":
            whole_files.parse_json(content, path)

    def files(self) -> list[Path]:
        """The files of the run that have checksums, or would if they were not older."""
        own = [path for path in self.path.iterdir() if path.name in OF_A_RUN]
        below = [
            path
            for pattern in ("round-*/*", "state/*.safetensors", "figures/*")
            for path in self.path.glob(pattern)
            # What a link leads to may not be of this run.
            if not path.parent.is_symlink()
        ]
        # Those of a table in several files are checked with the one that lists them.
        return sorted(
            path for path in [*own, *below] if not path.name.startswith(".") and not is_shard(path)
        )

    def unchecked(self) -> list[Path]:
        """Those of them that are older than checksums."""
        return [path for path in self.files() if not self._checksums.has(path)]

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "config.json").exists()

    def of_seed(self, seed: int) -> "RunFolder":
        """The run of one seed within a run of several."""
        return RunFolder(self.path / f"seed-{seed}", self._workers)

    def of_refit(self) -> "RunFolder":
        """What rounds became that were trained once more, on train and validation."""
        return RunFolder(self.path / "refit", self._workers)

    def read_config(self) -> dict[str, Any]:
        """The settings of the run; those of its report where ``config.json`` is damaged.

        Raises:
            InputError: If the folder holds no run, or neither file has them.
        """
        return read_kept_settings(self.path, self._checksums)

    def read_environment(self) -> dict[str, Any]:
        """Where the run was begun.

        Raises:
            InputError: If the folder holds no run.
        """
        return self._read_json(self.path / "environment.json")

    def read_report(self) -> Report:
        """The report as far as the run has come.

        Raises:
            InputError: If the folder holds no run, or one whose dense round is not done.
        """
        self.read_config()
        path = self.path / "report.json"
        if not self._checksums.there_or_missed(path):
            raise InputError(
                f"{self.path} has no report yet, its dense round is not done: wait for it, or "
                "continue it with `resume`"
            )
        report = _parse(Report, self._checksums.read(path), path)
        if not self._checksums.has(path):
            _warn(f"{self.path} is older than checksums: its files are read unchecked")
        done = 1 + len(report.rounds)
        if report.groups is None or not self._has_round(done):
            return report
        # It is not written after every round of many.
        results = [report.dense, *report.rounds, *self._results_from(done)]
        return Report.of_seed(report.config, report.groups, report.popularity, results)

    def read_ended(self) -> str | None:
        """Why the run ended before its last round, :obj:`None` where it did not."""
        return self.read_report().ended if (self.path / "report.json").exists() else None

    def write_report(self, report: Report) -> None:
        """Write ``report.json``, ``report.md`` and ``rounds.jsonl``."""
        rounds = [report.dense, *report.rounds]
        self._write_lines(self.path / "rounds.jsonl", rounds)
        text = to_markdown(report, self.notes)
        self._write(self.path / "report.md", text.encode(errors="backslashreplace"))
        self._write(self.path / "report.json", report.to_json().encode())

    def write_page(self, html: str, path: str | Path | None = None) -> Path:
        """Write the page of the run, ``report.html`` unless told otherwise; return its path."""
        content = html.encode(errors="backslashreplace")
        if path is None:
            return self.write_file("report.html", content)
        whole_files.write(Path(path), content)
        return Path(path)

    def write_file(self, name: str | Path, content: bytes) -> Path:
        """Write a file of what was found out about the run later; return its path."""
        self._write(self.path / name, content)
        return self.path / name

    def read_file(self, name: str) -> bytes | None:
        """What :meth:`write_file` wrote, :obj:`None` where there is no such file.

        Raises:
            Damaged: If it is.
        """
        path = self.path / name
        return self._checksums.read(path) if path.exists() else None

    def write_epochs(self, records: Iterable[EpochRecord]) -> None:
        """Write ``epochs.jsonl`` anew, unless it holds just these records."""
        path, content = self.path / "epochs.jsonl", _lines(records, exclude_none=True)

        def write() -> None:
            if not path.exists() or path.read_bytes() != content:
                self._write(path, content)

        self._by_first(write)

    def add_epochs(self, records: Sequence[EpochRecord]) -> None:
        """Add records to ``epochs.jsonl``."""
        if records:
            content = _lines(records, exclude_none=True)
            path = self.path / "epochs.jsonl"
            self._by_first(lambda: self._checksums.append(path, content))

    def read_epochs(self, rounds: int) -> list[EpochRecord]:
        """The records of the first ``rounds`` rounds."""
        path = self.path / "epochs.jsonl"
        if not self._checksums.there_or_missed(path):
            return []
        lines = self._checksums.read(path).splitlines()
        records = [_parse(EpochRecord, line, path) for line in lines]
        return [record for record in records if record.round < rounds]

    def write_initial(self, weights: Weights) -> None:
        """Write θ₀.

        Raises:
            Damaged: If it was there before, and was another.
        """
        path = self.path / "theta0.safetensors"
        lost = self._workers.size == 1 and self._checksums.has(path)
        if lost and not self._checksums.knows(path, _tensors(weights)):
            remedy = "bring it back from a copy, or begin a new run: the rounds so far remain"
            raise Damaged(path, "it is lost, and what is drawn here is another", remedy)
        self._write_tensors(path, weights)

    def read_initial(self) -> Weights | None:
        """θ₀, or :obj:`None` before it is drawn."""
        path = self.path / "theta0.safetensors"
        return self._read_weights(path) if path.exists() else None

    def write_late(self, weights: Weights) -> None:
        """Write what late rewinding restarts from."""
        self._write_tensors(self.path / "late.safetensors", weights)

    def read_late(self) -> Weights:
        """What late rewinding restarts from."""
        return self._read_weights(self.path / "late.safetensors")

    def write_auxiliary(self, round: int, weight: Tensor, seconds: float, mask: Mask) -> None:
        """Write what an auxiliary training came to, what it cost in seconds, and its mask."""
        header = {"seconds": repr(seconds)}
        self._write_tensors(self._auxiliary(round), {TABLE: weight, MASK: mask.table}, header)

    def has_auxiliary(self, round: int) -> bool:
        """Whether :meth:`write_auxiliary` was called for a round."""
        return self._auxiliary(round).exists()

    def read_auxiliary(self, round: int) -> tuple[Mask, Tensor, float]:
        """Mask, table and seconds, as :meth:`write_auxiliary` wrote them."""
        path = self._auxiliary(round)
        tensors = self._read_tensors(path)
        with self._readable(path):
            seconds = float(_header(path)["seconds"])
        # Older code kept no mask, since it was that of the round itself.
        mask = Mask(tensors[MASK]) if MASK in tensors else self.read_round(round)[0]
        return mask, tensors[TABLE], seconds

    def write_round(
        self, result: RoundResult, mask: Mask, weights: Weights, users: dict[str, Tensor]
    ) -> None:
        """Write a finished round; its ``result.json`` comes last and marks it whole.

        Args:
            result: What it came to.
            mask: Its mask.
            weights: Its best parameters.
            users: The users of test, and each metric of each of them.
        """
        folder = self._round(result.round)
        self._write_tensors(folder / "users.safetensors", users)
        self._write_tensors(folder / "mask.safetensors", {MASK: mask.table})
        self._write_tensors(folder / "best.safetensors", weights)
        self._write(folder / "result.json", result.model_dump_json(indent=2).encode() + b"\n")

    def read_results(self) -> list[RoundResult]:
        """The results of the finished rounds, in order."""
        return list(self._results_from(0))

    def read_result(self, round: int) -> RoundResult | None:
        """The result of a round, :obj:`None` where it is not finished."""
        path = self._round(round) / "result.json"
        if not self._checksums.there_or_missed(path):
            return None
        return _parse(RoundResult, self._checksums.read(path), path)

    def _results_from(self, first: int) -> Iterator[RoundResult]:
        while (result := self.read_result(first)) is not None:
            yield result
            first += 1

    def _has_round(self, round: int) -> bool:
        return (self._round(round) / "result.json").exists()

    def read_round(self, round: int) -> tuple[Mask, Tensor]:
        """Mask and best table of a finished round."""
        folder = self._round(round)
        table = self._read_tensor(folder / "mask.safetensors", MASK)
        return Mask(table), self.read_weights(round)[TABLE]

    def read_weights(self, round: int) -> Weights:
        """The best parameters of a finished round, by their names in the model."""
        return self._read_weights(self._round(round) / "best.safetensors")

    def read_users(self, round: int) -> dict[str, Tensor]:
        """The users of test, and each metric of each of them in a finished round."""
        return self._read_tensors(self._round(round) / "users.safetensors")

    def write_state(self, training: Training, stage: Stage) -> None:
        """Keep a training in progress, in one file so that it is whole or absent."""
        progress = training.progress.model_dump_json()
        self._write_tensors(self._states[stage], training.tensors(), {"progress": progress})

    def restore_state(self, training: Training, stage: Stage) -> None:
        """Continue ``training`` from what is kept, if that is of the same round."""
        path = self._states[stage]
        if not path.exists():
            return
        tensors = self._read_tensors(path)
        with self._readable(path):
            kept = _parse(Progress, _header(path)["progress"], path)
        if kept.round == training.progress.round:
            with self._readable(path):
                training.restore(tensors, kept)

    def tidy(self) -> None:
        """Remove what only a run that goes on needs: its states, and files half written."""
        self._by_first(self._tidy)

    def _tidy(self) -> None:
        for path in self._states.values():
            self._remove(path)
        for path in self.path.rglob(whole_files.TEMPORARY):
            path.unlink()

    def clean(self) -> int:
        """Remove what resuming the run no longer needs; the folder must be owned.

        Returns:
            The bytes that were freed.
        """
        planned = self.read_config().get("rounds", 0)
        report = self.read_report() if (self.path / "report.json").exists() else None
        done = report is not None and (len(report.rounds) == planned or report.ended is not None)
        half_written = list(self.path.rglob(whole_files.TEMPORARY))
        unused = []
        if done:
            below = [*self.path.glob("round-*/*"), *self.path.glob("state/*.safetensors")]
            # What a link leads to may not be of this run.
            own = [path for path in below if not path.parent.is_symlink()]
            of_masks = (*AUXILIARY, "training.safetensors")
            unused = [path for path in own if listed_by(path) in of_masks]
        freed = sum(path.stat().st_size for path in [*half_written, *unused])
        for path in half_written:
            path.unlink()
        for path in unused:
            self._checksums.remove(path)
        return freed

    def _round(self, round: int) -> Path:
        return self.path / f"round-{round:03d}"

    def _auxiliary(self, round: int) -> Path:
        return _auxiliary_file(self._round(round))

    def _read_json(self, path: Path) -> dict[str, Any]:
        if not self._checksums.there_or_missed(path):
            raise InputError(f"{self.path} holds no run: there is no {path.name} in it")
        return whole_files.parse_json(self._checksums.read(path), path)

    def _read_weights(self, path: Path) -> Weights:
        weights = self._read_tensors(path)
        with self._readable(path):
            return {TABLE: weights[TABLE], **weights}

    def _read_tensor(self, path: Path, name: str) -> Tensor:
        tensors = self._read_tensors(path)
        with self._readable(path):
            return tensors[name]

    def _read_tensors(self, path: Path) -> dict[str, Tensor]:
        content = self._checksums.read(path)
        with self._readable(path):
            tensors: dict[str, Tensor] = safetensors.torch.load(content)
            shards = shards_of(content)
        if shards:
            return {**tensors, **self._join(path, shards)}
        if self._workers.size > 1:
            for name in tables_in(tensors):
                own = self._workers.share(tensors[name].size(1))
                tensors[name] = tensors[name][:, own].contiguous()
        return tensors

    def _join(self, path: Path, shards: Sequence[Shard]) -> dict[str, Tensor]:
        """This worker's columns of tables that were written in several files."""
        own = self._workers.share(sum(shard.columns for shard in shards))
        parts: dict[str, list[Tensor]] = {}
        first = 0
        for shard in shards:
            begin, end = max(own.start - first, 0), min(own.stop - first, shard.columns)
            first += shard.columns
            if begin < end:
                for name, table in self._read_shard(path, shard).items():
                    parts.setdefault(name, []).append(table[:, begin:end])
        return {name: torch.cat(tables, dim=1) for name, tables in parts.items()}

    def _read_shard(self, path: Path, shard: Shard) -> dict[str, Tensor]:
        """Some columns of the tables of a file."""
        file = path.with_name(shard.file)
        try:
            content = whole_files.read(file)
        except InputError as error:
            raise Damaged(path, f"its part {error}", self._checksums.remedy(path)) from None
        if not shard.holds(content):
            reason = f"the checksum of its part {shard.file} does not match"
            raise Damaged(path, reason, self._checksums.remedy(path))
        tables: dict[str, Tensor] = safetensors.torch.load(content)
        return tables

    @contextlib.contextmanager
    def _readable(self, path: Path) -> Iterator[None]:
        """Tell what is no file of tensors, or has not those that it should have."""
        try:
            yield
        except (safetensors.SafetensorError, KeyError, RuntimeError, TypeError) as error:
            reason = f"it cannot be used ({error})"
            raise Damaged(path, reason, self._checksums.remedy(path)) from None

    def _write_tensors(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None
    ) -> None:
        tables = tables_in(tensors) if self._workers.size > 1 else []
        if tables:
            own = _tensors({name: tensors[name] for name in tables})
            shard = Shard.of(path, tensors[tables[0]].size(1), own)
            whole_files.write(path.with_name(shard.file), own)
            listed = self._workers.texts(shard.model_dump_json())
            header = {**(header or {}), SHARDS: f"[{','.join(listed)}]"}
            tensors = {name: value for name, value in tensors.items() if name not in tables}
        # Written last, it makes the parts count that it lists.
        content = _tensors(tensors, header)

        def write() -> None:
            self._write(path, content)
            drop_shards(path, {shard.file for shard in shards_of(content)})

        self._by_first(write)

    def _remove(self, path: Path) -> None:
        self._checksums.remove(path)
        drop_shards(path, set())

    def _write_json(self, path: Path, content: dict[str, Any]) -> None:
        self._write(path, json.dumps(content, indent=2).encode() + b"\n")

    def _write_lines(self, path: Path, records: Iterable[BaseModel]) -> None:
        self._write(path, _lines(records))

    def _write(self, path: Path, content: bytes) -> None:
        self._by_first(lambda: self._checksums.write(path, content))


def _lines(records: Iterable[BaseModel], exclude_none: bool = False) -> bytes:
    lines = (record.model_dump_json(exclude_none=exclude_none) + "\n" for record in records)
    return "".join(lines).encode()


def _tensors(tensors: dict[str, Tensor], header: dict[str, str] | None = None) -> bytes:
    whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    return safetensors.torch.save(whole, header)


def _header(path: Path) -> dict[str, str]:
    """What a file of tensors says of itself; safetensors opens no path that is not UTF-8."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata: dict[str, str] = header["__metadata__"]
    return metadata


def _warn(message: str) -> None:
    warnings.warn(message, RunWarning, stacklevel=3)


def _own_ids(ids: Ids | None, number: int, name: str) -> list[Any] | None:
    """Ids as a list, :obj:`None` where they are the indices anyway."""
    if ids is None:
        return None
    listed: list[Any] = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if len(set(listed)) != number or len(listed) != number:
        raise InputError(f"`{name}` must be {number:,} different ids, one for each index")
    return None if listed == list(range(number)) else listed


def _auxiliary_file(folder: Path) -> Path:
    """Where an auxiliary training is kept; a run begun by older code goes on under its old name."""
    new, old = (folder / name for name in AUXILIARY)
    return old if old.exists() else new


def _parse(model: type[Model], text: str | bytes, path: Path) -> Model:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path} is damaged: {error.errors()[0]['msg']}") from None
