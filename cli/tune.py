"""``pyg-lth tune``: search for settings that validation likes."""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import click

from pyg_lth.cli.datasets import opened
from pyg_lth.cli.engines import engine_options
from pyg_lth.cli.settings import TrainSettings, build, options_of
from pyg_lth.cli.streams import say
from pyg_lth.config import PRESETS, PresetName, of_preset
from pyg_lth.errors import InputError
from pyg_lth.sweeps.engines import ENGINES, Room

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@options_of(TrainSettings, skip=("teacher", "distill"))
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True, help="In all.")
@click.option(
    "--over",
    multiple=True,
    metavar="SETTING",
    help="Tune this one: lr, reg, temperature, negatives or layers; may come several times.  "
    "[default: those that matter to backbone and loss]",
)
@click.option(
    "--study", type=FILE, default="study.db", show_default=True, help="SQLite file of the trials."
)
@click.option(
    "--out",
    type=FILE,
    default="tuned.json",
    show_default=True,
    help="File for the best settings, which prune --config takes.",
)
@click.option(
    "--config",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML or JSON file of settings to begin with; flags take precedence over it.",
)
@engine_options("Trials side by side, each by itself.  [default: 1]")
@click.option("--preset", type=click.Choice(list(PRESETS)), default="honest", help="As in prune.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
def tune(
    trials: int,
    over: tuple[str, ...],
    study: Path,
    out: Path,
    file: Path | None,
    preset: PresetName,
    engine: str,
    jobs: int | None,
    cpus_per_run: int | None,
    gpus_per_run: float | None,
    ray_address: str | None,
    quiet: bool,
    **flags: Any,
) -> None:
    """Tune a dense training on validation: the same command again goes on.

    The first trial has the settings given. Trials whose validation curve lies below the median of
    the others are given up early. Test is not looked at.
    """
    settings = build(TrainSettings, file, flags, functools.partial(of_preset, preset))
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent} to write it in")

    if engine == "ray" and gpus_per_run is None:
        gpus_per_run = float(settings.device == "cuda")
    room = Room(jobs or 1, cpus_per_run, gpus_per_run, ray_address)
    # One after the other they need no process but this one.
    runner = None if (engine, room) == ("local", Room(1)) else ENGINES[engine](room)

    from pyg_lth.datasets import DatasetOptions
    from pyg_lth.tuning import tune as search

    chosen = settings.model_dump(include=set(DatasetOptions.model_fields))
    data = opened(DatasetOptions(**chosen))[0]

    def show(trial: int, drawn: dict[str, Any], record: Any) -> None:
        if not quiet:
            values = ", ".join(f"{name} {value:.4g}" for name, value in drawn.items())
            metric = record.valid[settings.select_by]
            say(
                f"trial {trial}, {values}: epoch {record.epoch}, "
                f"valid {settings.select_by} {metric:.4f}",
                err=True,
            )

    try:
        tuned = search(
            data, settings, study, trials=trials, over=over or None, callback=show, engine=runner
        )
    except KeyboardInterrupt:
        say("Interrupted. The same command goes on.", err=True)
        click.get_current_context().exit(130)
    text = json.dumps(tuned.config.model_dump(exclude_defaults=True), indent=2) + "\n"
    temporary = out.with_name(f".{out.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(out)
    say(
        f"{tuned.trials} trials; the best has {settings.select_by} {tuned.metric:.4f} on "
        f"validation: {out}"
    )
    say(f"Next: pyg-lth prune --config {out}", err=True)
    sys.stderr.flush()
