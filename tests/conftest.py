"""Graphs that several tests share, and how to compare what runs leave."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

# Without a CUDA device Triton interprets its kernels; it has to know before others import it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

import pytest
from torch import Tensor
from torch_geometric.data import HeteroData

from pyg_lth import cli
from pyg_lth.config import PruneConfig
from pyg_lth.interactions import InteractionSplit
from pyg_lth.lottery.methods import METHODS
from pyg_lth.nn.backbones import BACKBONES
from pyg_lth.strategies import Registry
from pyg_lth.training.losses import LOSSES
from tests.pretended_cuda import Pretended, pretended

# The graphs here are so small that a second thread only costs time, and a process that never
# started one can be forked safely.
torch.set_num_threads(1)

Pairs = list[tuple[int, int]] | Tensor
GraphMaker = Callable[..., HeteroData]
SplitMaker = Callable[..., InteractionSplit]


@pytest.fixture(autouse=True)
def seed_torch() -> None:
    """Let every test that draws at random draw the same."""
    torch.manual_seed(0)


there_is_a_cuda_device = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="there is no CUDA device"
)


@pytest.fixture(params=["pretended", pytest.param("real", marks=there_is_a_cuda_device)])
def cuda(request, monkeypatch) -> Iterator[None]:
    """A CUDA device: one that is pretended, and the real one where there is one."""
    with pretended(monkeypatch) if request.param == "pretended" else contextlib.nullcontext():
        yield


@pytest.fixture
def watched(monkeypatch) -> Iterator[Pretended]:
    """A pretended CUDA device, which tells what is done on it."""
    with pretended(monkeypatch) as device:
        yield device


@pytest.fixture
def registries() -> Iterator[None]:
    """What is registered in a test is forgotten after it."""
    kinds: tuple[Registry[Any], ...] = (METHODS, BACKBONES, LOSSES)
    before = [(dict(kind._known), dict(kind._guests)) for kind in kinds]
    yield
    for kind, (known, guests) in zip(kinds, before, strict=True):
        kind._known, kind._guests = known, guests


def as_index(pairs: Pairs) -> Tensor:
    if isinstance(pairs, Tensor):
        return pairs
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2).t().contiguous()


def build_graph(
    num_users: int, num_items: int, train: Pairs, test: Pairs, valid: Pairs | None = None
) -> HeteroData:
    data = HeteroData()
    data["user"].num_nodes = num_users
    data["item"].num_nodes = num_items
    store = data["user", "rates", "item"]
    store.edge_index = as_index(train)
    store.edge_label_index = as_index(test)
    if valid is not None:
        store.val_edge_label_index = as_index(valid)
    return data


def clustered_graph(num_users: int, num_items: int, num_tastes: int, degree: int) -> HeteroData:
    """Every user mostly takes items of one taste; two items each for validation and test."""
    # Only torch.rand is the same in every release of torch; multinomial is not.
    generator = torch.Generator().manual_seed(0)
    popularity = 1 / (10 + torch.rand(num_items, generator=generator).argsort())
    taste = torch.arange(num_users).unsqueeze(1) % num_tastes
    liked = taste == torch.arange(num_items) % num_tastes
    weight = popularity * torch.where(liked, 20.0, 1.0)
    # The shortest of exponential waits at these rates: a draw without replacement by weight.
    wait = -torch.rand(num_users, num_items, generator=generator).log() / weight
    item = wait.argsort(dim=1)[:, :degree]
    user = torch.arange(num_users).repeat_interleave(degree).view(num_users, degree)
    test, valid, train = (
        torch.stack([user[:, columns].flatten(), item[:, columns].flatten()])
        for columns in (slice(0, 2), slice(2, 4), slice(4, None))
    )
    return build_graph(num_users, num_items, train, test, valid)


@pytest.fixture(scope="session")
def make_graph() -> GraphMaker:
    """Build a HeteroData from lists of (user, item), or from index tensors."""
    return build_graph


@pytest.fixture(scope="session")
def make_split() -> SplitMaker:
    """Build an InteractionSplit from the same arguments as ``make_graph``."""
    return lambda *args, **kwargs: InteractionSplit.from_data(build_graph(*args, **kwargs))


@pytest.fixture(scope="session")
def taste_graph() -> HeteroData:
    """200 users and 150 items in five clusters of taste: enough to learn something from."""
    return clustered_graph(200, 150, num_tastes=5, degree=12)


@pytest.fixture(scope="session")
def small_graph() -> HeteroData:
    """40 users and 30 items: enough to run whole searches quickly."""
    return clustered_graph(40, 30, num_tastes=3, degree=9)


@pytest.fixture(scope="session")
def quick_config() -> Callable[..., PruneConfig]:
    """Settings of a search on ``small_graph`` that takes a moment; keywords override them."""
    quick = dict(
        dim=4,
        layers=2,
        batch_size=64,
        lr=0.05,
        max_epochs=4,
        eval_every=2,
        patience=2,
        topk=5,
        rounds=3,
        amount=0.29,
        device="cpu",
    )

    def build(**settings: object) -> PruneConfig:
        if settings.get("model") == "mf":
            settings.setdefault("layers", None)
        return PruneConfig(**{**quick, **settings})

    return build


@pytest.fixture(scope="session")
def joint_edges() -> Callable[..., Tensor]:
    """Build both directions of ``num_edges`` distinct random edges over users then items."""

    def build(num_users: int, num_items: int, num_edges: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        pair = torch.randperm(num_users * num_items, generator=generator)[:num_edges]
        edge = torch.stack([pair // num_items, pair % num_items + num_users])
        return torch.cat([edge, edge.flip(0)], dim=1)

    return build


@pytest.fixture(scope="session")
def entries_wanted() -> Callable[..., int]:
    """Count the living entries after rounds at 29%, by integer arithmetic."""

    def count(scope: str, num_users: int, num_items: int, dim: int, round: int) -> int:
        def left(size):
            for _ in range(round):
                size -= size * 29 // 100
            return size

        users, items = num_users * dim, num_items * dim
        return {
            "joint": left(users + items),
            "row": left(users + items),
            "user": left(users) + items,
            "item": users + left(items),
            "user_item": left(users) + left(items),
        }[scope]

    return count


@pytest.fixture
def run(monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """Run the command line and return exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pyg-lth", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capfd.readouterr()
        return stopped.value.code or 0, out, err

    return run


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not k.endswith("seconds")}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def written_in(folder: Path) -> dict[str, Any]:
    """What stands in the tensors, JSON and JSON lines of a folder, apart from times."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        # An auxiliary table is needed by no round that is done.
        if path.name in ("auxiliary.safetensors", "data.json"):
            continue
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".safetensors":
            found[name] = path.read_bytes()
        elif path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_bytes()))
        elif path.suffix == ".jsonl":
            lines = path.read_bytes().splitlines()
            found[name] = [without_times(json.loads(line)) for line in lines]
    return found


@pytest.fixture(scope="session")
def written() -> Callable[[Path], dict[str, Any]]:
    return written_in
