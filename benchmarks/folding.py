"""`python -m benchmarks.folding`: what folding in costs people who were not in training.

A model is trained on Gowalla twice, once with everybody and once without some users. These are then
answered for by their history, and their recall is set beside that of the model that knew them.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor

import pyg_lth
from benchmarks.results import device_name
from pyg_lth.datasets import Gowalla
from pyg_lth.evaluation.evaluator import Evaluator, popularity_embedding
from pyg_lth.interactions import InteractionSplit
from pyg_lth.tickets import Ticket, folding
from pyg_lth.tickets.building import build_ticket

TOP = 20
SOFTMAX = {"loss": "sampled-softmax", "batch_by": "edge", "reg": 0.0, "temperature": 0.12}
MODELS: dict[str, dict[str, Any]] = {
    "mf": {"model": "mf", "lr": 0.003, "eval_every": 5, "patience": 3, "max_epochs": 100},
    "lightgcn": {
        **{"model": "lightgcn", "lr": 0.004, "batch_size": 4096, "eval_every": 2},
        **{"patience": 1, "max_epochs": 10, **SOFTMAX},
    },
}
PENALTIES = (0.1, 1.0, 10.0)


def without(split: InteractionSplit, users: Tensor) -> InteractionSplit:
    """The same with nothing known of some users but what is tested of them."""

    def others(pairs: Tensor) -> Tensor:
        return pairs[:, ~torch.isin(pairs[0], users)]

    assert split.valid is not None
    return InteractionSplit(
        split.num_users, split.num_items, others(split.train), others(split.valid), split.test
    )


def trained(split: InteractionSplit, settings: dict[str, Any]) -> Ticket:
    """A ticket of the dense model."""
    with tempfile.TemporaryDirectory() as folder:
        config = pyg_lth.TrainConfig(dim=64, topk=TOP, **settings)
        pyg_lth.train(split.to_data(), config, run_dir=folder)
        return build_ticket(folder, split.to_data(), round=0)


def folded(ticket: Ticket, split: InteractionSplit, users: Tensor) -> Tensor:
    """Ranked lists for some users by their items alone."""
    assert split.valid is not None
    known, held_out = (dict(_lists(pairs)) for pairs in (split.train, split.valid))
    lists = [
        ticket.recommend_for(known.get(user, []), TOP, exclude=held_out.get(user, [])).items
        for user in users.tolist()
    ]
    return torch.tensor(lists)


def _lists(pairs: Tensor) -> list[tuple[int, list[int]]]:
    user, item = pairs[:, pairs[0].argsort(stable=True)]
    users, counts = user.unique_consecutive(return_counts=True)
    parts = item.split(counts.tolist())
    return [(own, part.tolist()) for own, part in zip(users.tolist(), parts, strict=True)]


def measure(split: InteractionSplit, users: Tensor, settings: dict[str, Any]) -> dict[str, float]:
    """Recall of some users by each way to answer for them."""
    asked = InteractionSplit(
        split.num_users,
        split.num_items,
        split.train,
        split.valid,
        split.test[:, torch.isin(split.test[0], users)],
    )
    evaluate, metric = Evaluator(asked, "test", TOP), f"recall@{TOP}"

    def of_folded(ticket: Ticket) -> float:
        return float(evaluate.per_user(folded(ticket, split, users))[metric].mean())

    whole = trained(split, settings)
    found = {"trained with them": evaluate(torch.from_numpy(whole.embedding()))[metric]}
    ticket = trained(without(split, users), settings)
    if ticket.fold_in == "propagation":
        found["folded in"] = of_folded(ticket)
    else:
        usual = folding.RIDGE
        for penalty in PENALTIES:
            folding.RIDGE = penalty
            found[f"folded in, penalty {penalty:g}"] = of_folded(ticket)
        folding.RIDGE = usual
    popularity = popularity_embedding(without(split, users))
    return {**found, "by popularity": evaluate(popularity)[metric]}


@click.command()
@click.option("--root", default="data", show_default=True, help="Folder of the data sets.")
@click.option("--users", "number", default=2000, show_default=True, help="Users left out.")
def main(root: str, number: int) -> None:
    """Measure folding in; print a table and write benchmarks/results/folding-DEVICE.json."""
    split = InteractionSplit.from_data(Gowalla(f"{root}/gowalla")[0]).hold_out_validation(0)
    tested = split.test[0].unique()
    chosen = torch.randperm(tested.numel(), generator=torch.Generator().manual_seed(0))[:number]
    users = tested[chosen].sort().values
    path = Path(__file__).parent / "results" / f"folding-{device_name()}.json"
    found: dict[str, Any] = {}
    for name, settings in MODELS.items():
        found[name] = {"settings": settings, f"recall@{TOP}": measure(split, users, settings)}
        for way, value in found[name][f"recall@{TOP}"].items():
            click.echo(f"| {name} | {way} | {value:.4f} |")
        path.write_text(json.dumps({"users": number, "models": found}, indent=1) + "\n")
    click.echo(f"written: {path}", err=True)


if __name__ == "__main__":
    main()
