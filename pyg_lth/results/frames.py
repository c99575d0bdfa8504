"""Results as tables of pandas, which is imported only here and only when one is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pyg_lth.errors import InputError
from pyg_lth.results.report import Report, RoundResult, Ticket
from pyg_lth.results.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

OF_A_ROUND = ("round", "density", "remaining", "epochs", "best_epoch", "epochs_to_dense")
AGAINST_DENSE = ("relative", "low", "high", "p_value")
OF_A_TICKET = ("p_adjusted", "wins", "strict")


def round_figures(result: RoundResult) -> dict[str, Any]:
    """All figures of a round but its analysis, under names of their own.

    Metrics are named without their K, as in ``test_recall``.
    """
    return {
        **{name: getattr(result, name) for name in (*OF_A_ROUND, "seconds", "cost_seconds")},
        **metric_columns("valid", result.valid or dict.fromkeys(result.test)),
        **metric_columns("test", result.test),
        **metric_columns("test_sd", result.test_sd or dict.fromkeys(result.test)),
        **metric_columns("test", result.beyond or {}),
        **{name: getattr(result.difference, name, None) for name in AGAINST_DENSE},
        **{
            name: getattr(result, name) if isinstance(result, Ticket) else None
            for name in OF_A_TICKET
        },
    }


def metric_columns(prefix: str, metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Metrics by name without K."""
    return {f"{prefix}_{name.partition('@')[0]}": value for name, value in metrics.items()}


def report_frame(report: Report) -> "pd.DataFrame":
    """A row for each round of a report, the dense one first."""
    import pandas as pd

    return pd.DataFrame([round_figures(result) for result in (report.dense, *report.rounds)])


def user_metrics(run_dir: str | Path, round: int | None = None) -> "pd.DataFrame":
    """The metrics of each user on test, of the finished rounds of a run.

    Args:
        run_dir: The run folder.
        round: A round; all of them by default.

    Returns:
        A row for each seed, round and user of test. The columns are ``seed``, ``round``,
        ``density``, ``user`` (the index), ``user_id`` (the original id, or the index where the
        folder keeps none), then the metrics, ``recall@20`` and the like.

    Raises:
        InputError: If the folder holds no run, or the round is not done.

    Example:
        >>> import pyg_lth
        >>> from pyg_lth.datasets import Synthetic
        >>> data = Synthetic("data/synthetic", 100, 80, 2000)[0]
        >>> config = pyg_lth.PruneConfig(model="mf", dim=8, max_epochs=5, rounds=2)
        >>> report = pyg_lth.find_tickets(data, config, run_dir="runs/users")
        >>> users = pyg_lth.user_metrics("runs/users")
        >>> means = users.groupby("round")["recall@20"].mean()
        >>> bool(abs(means[0] - report.dense.test["recall@20"]) < 1e-6)
        True
    """
    import pandas as pd

    folder = RunFolder(run_dir)
    config = folder.read_config()
    first, seeds = config["seed"], config.get("seeds", 1)
    ids = folder.read_data().user_ids if folder.has_data else None
    parts = []
    for seed in range(first, first + seeds):
        own = folder if seeds == 1 else folder.of_seed(seed)
        results = own.read_results()
        for result in results if round is None else results[round : round + 1]:
            users = {name: value.numpy() for name, value in own.read_users(result.round).items()}
            index = users.pop("user")
            parts.append(
                pd.DataFrame(
                    {
                        "seed": seed,
                        "round": result.round,
                        "density": result.density,
                        "user": index,
                        "user_id": index if ids is None else np.asarray(ids, object)[index],
                        **dict(sorted(users.items())),
                    }
                )
            )
    if not parts:
        raise InputError(f"{run_dir} has no such finished round")
    frame = pd.concat(parts, ignore_index=True)
    return frame.infer_objects()
