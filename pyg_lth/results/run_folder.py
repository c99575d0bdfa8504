"""The run folder: one owner at a time, every file whole or absent, resumable at any moment."""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import filelock
import safetensors
import safetensors.torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from pyg_lth.config import completed
from pyg_lth.errors import InputError
from pyg_lth.nn.backbones import TABLE, Weights
from pyg_lth.pruning.masks import Mask
from pyg_lth.results.environment import describe_environment
from pyg_lth.results.report import Report, RoundResult
from pyg_lth.results.text import to_markdown
from pyg_lth.training.progress import EpochRecord, Progress
from pyg_lth.training.trainer import Training

Model = TypeVar("Model", bound=BaseModel)

# The training of a round, or one that only finds a mask.
Stage = Literal["training", "auxiliary"]

MASK = "mask"


class RunFolder:
    """The files of one run (design, Section 5).

    Args:
        path: The folder; made when the run is begun.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._states: dict[Stage, Path] = {
            "training": self.path / "state" / "training.safetensors",
            "auxiliary": _auxiliary_file(self.path / "state"),
        }
        self._lock = filelock.FileLock(self.path / "state" / "lock")

    def __enter__(self) -> "RunFolder":
        """Own the folder until the block ends or the process does.

        Raises:
            InputError: If another process owns it.
        """
        (self.path / "state").mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise InputError(
                f"{self.path} is in use by another process: wait for it, or choose another folder"
            ) from None
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def begin(self, config: dict[str, Any], fingerprint: str, resume: bool) -> None:
        """Claim the folder for a run of these settings on this graph.

        Args:
            config: The settings.
            fingerprint: Of the graph.
            resume: Whether to continue the run that the folder holds.

        Raises:
            InputError: If the folder holds a run and is not to be resumed, or holds none or
                another one and is.
        """
        kept = self.path / "config.json"
        if not resume:
            if kept.exists():
                raise InputError(
                    f"{self.path} already holds a run: continue it with `resume`, or choose another "
                    "`run_dir`"
                )
            environment = {"graph": fingerprint, **describe_environment()}
            self._write_json(self.path / "environment.json", environment)
            self._write_json(kept, config)
            return
        if completed(self.read_config()) != config:
            raise InputError(
                f"{kept} holds other settings than those given: leave them out to resume"
            )
        if self.read_environment().get("graph") != fingerprint:
            raise InputError(
                f"the graph is not the one that {self.path} was begun with: bring that one back, "
                "or begin a new run"
            )

    @property
    def begun(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "config.json").exists()

    def of_seed(self, seed: int) -> "RunFolder":
        """The run of one seed within a run of several."""
        return RunFolder(self.path / f"seed-{seed}")

    def of_refit(self) -> "RunFolder":
        """What rounds became that were trained once more, on train and validation."""
        return RunFolder(self.path / "refit")

    def read_config(self) -> dict[str, Any]:
        """The settings of the run.

        Raises:
            InputError: If the folder holds no run.
        """
        return self._read_json(self.path / "config.json")

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
        if not path.exists():
            raise InputError(
                f"{self.path} has no report yet, its dense round is not done: wait for it, or "
                "continue it with `resume`"
            )
        return _parse(Report, path.read_bytes(), path)

    def read_ended(self) -> str | None:
        """Why the run ended before its last round, :obj:`None` where it did not."""
        return self.read_report().ended if (self.path / "report.json").exists() else None

    def write_report(self, report: Report) -> None:
        """Write ``report.json``, ``report.md`` and ``rounds.jsonl``."""
        rounds = [report.dense, *report.rounds]
        self._write_lines(self.path / "rounds.jsonl", rounds)
        self._write(self.path / "report.md", to_markdown(report).encode())
        self._write(self.path / "report.json", report.to_json().encode())

    def write_page(self, html: str, path: str | Path | None = None) -> Path:
        """Write the page of the run, ``report.html`` unless told otherwise; return its path."""
        path = self.path / "report.html" if path is None else Path(path)
        self._write(path, html.encode())
        return path

    def write_text(self, name: str, text: str) -> None:
        """Write a file of what was found out about the run later."""
        self._write(self.path / name, text.encode())

    def write_epochs(self, records: Iterable[EpochRecord]) -> None:
        """Write ``epochs.jsonl``."""
        self._write_lines(self.path / "epochs.jsonl", records, exclude_none=True)

    def read_epochs(self, rounds: int) -> list[EpochRecord]:
        """The records of the first ``rounds`` rounds."""
        path = self.path / "epochs.jsonl"
        if not path.exists():
            return []
        records = [_parse(EpochRecord, line, path) for line in path.read_bytes().splitlines()]
        return [record for record in records if record.round < rounds]

    def write_initial(self, weights: Weights) -> None:
        """Write θ₀."""
        self._write_tensors(self.path / "theta0.safetensors", weights)

    def read_initial(self) -> Weights | None:
        """θ₀, or :obj:`None` before it is drawn."""
        path = self.path / "theta0.safetensors"
        return self._read_tensors(path) if path.exists() else None

    def write_late(self, weights: Weights) -> None:
        """Write what late rewinding restarts from."""
        self._write_tensors(self.path / "late.safetensors", weights)

    def read_late(self) -> Weights:
        """What late rewinding restarts from."""
        return self._read_tensors(self.path / "late.safetensors")

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
        with _readable(path), safetensors.safe_open(path, "pt") as file:
            seconds = float((file.metadata() or {})["seconds"])
        tensors = self._read_tensors(path)
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
        results: list[RoundResult] = []
        while (result := self.read_result(len(results))) is not None:
            results.append(result)
        return results

    def read_result(self, round: int) -> RoundResult | None:
        """The result of a round, :obj:`None` before it is finished."""
        path = self._round(round) / "result.json"
        return _parse(RoundResult, path.read_bytes(), path) if path.exists() else None

    def read_round(self, round: int) -> tuple[Mask, Tensor]:
        """Mask and best table of a finished round."""
        folder = self._round(round)
        table = self._read_tensors(folder / "mask.safetensors")[MASK]
        return Mask(table), self.read_weights(round)[TABLE]

    def read_weights(self, round: int) -> Weights:
        """The best parameters of a finished round, by their names in the model."""
        return self._read_tensors(self._round(round) / "best.safetensors")

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
        with _readable(path), safetensors.safe_open(path, "pt") as file:
            kept = _parse(Progress, (file.metadata() or {})["progress"], path)
        if kept.round == training.progress.round:
            training.restore(self._read_tensors(path), kept)

    def tidy(self) -> None:
        """Remove what only a run that goes on needs: its states, and files half written."""
        for path in self._states.values():
            path.unlink(missing_ok=True)
        for path in self.path.rglob(".*.tmp"):
            path.unlink()

    def _round(self, round: int) -> Path:
        return self.path / f"round-{round:03d}"

    def _auxiliary(self, round: int) -> Path:
        return _auxiliary_file(self._round(round))

    def _read_json(self, path: Path) -> dict[str, Any]:
        if not path.exists():
            raise InputError(f"{self.path} holds no run: there is no {path.name} in it")
        try:
            content = json.loads(path.read_text())
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{path} is damaged: {error}") from None
        if not isinstance(content, dict):
            raise InputError(f"{path} is damaged: it holds no JSON object")
        return content

    def _read_tensors(self, path: Path) -> dict[str, Tensor]:
        with _readable(path):
            tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
        return tensors

    def _write_tensors(
        self, path: Path, tensors: dict[str, Tensor], header: dict[str, str] | None = None
    ) -> None:
        whole = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        self._write(path, safetensors.torch.save(whole, header))

    def _write_json(self, path: Path, content: dict[str, Any]) -> None:
        self._write(path, json.dumps(content, indent=2).encode() + b"\n")

    def _write_lines(
        self, path: Path, records: Iterable[BaseModel], exclude_none: bool = False
    ) -> None:
        lines = (record.model_dump_json(exclude_none=exclude_none) + "\n" for record in records)
        self._write(path, "".join(lines).encode())

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def _auxiliary_file(folder: Path) -> Path:
    """Where an auxiliary training is kept; a run begun by older code goes on under its old name."""
    old = folder / "scout.safetensors"
    return old if old.exists() else folder / "auxiliary.safetensors"


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (safetensors.SafetensorError, KeyError, FileNotFoundError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): begin a new run") from None


def _parse(model: type[Model], text: str | bytes, path: Path) -> Model:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path} is damaged: {error.errors()[0]['msg']}") from None
