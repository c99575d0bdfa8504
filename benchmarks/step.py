"""Time one LightGCN training step against stock PyG, interleaved in one run.

A step is sampling, propagation, loss, backward and Adam. The peers are PyG's LightGCN on an
`edge_index` that it normalises in each step, and on a torch CSR adjacency normalised once.

    python benchmarks/step.py --root data
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch_geometric import nn
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from pyg_lth.config import TrainConfig
from pyg_lth.datasets import DatasetOptions, load_dataset
from pyg_lth.masks import Mask
from pyg_lth.splits import InteractionSplit
from pyg_lth.training import Training, Workbench

Step = Callable[[], object]


def our_step(bench: Workbench, generator: torch.Generator) -> Step:
    initial = bench.initialize()
    training = Training(bench, initial, Mask.ones(*initial.shape), round=0)
    size = bench.config.batch_size
    return lambda: training.step(*bench.sampler.sample(size, generator))


def stock_step(
    bench: Workbench, generator: torch.Generator, adjacency: torch.Tensor, normalize: bool
) -> Step:
    config, num_users = bench.config, bench.split.num_users
    num_nodes = num_users + bench.split.num_items
    model = nn.LightGCN(num_nodes, config.dim, config.layers, normalize=normalize)
    model.to(bench.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)

    def step() -> None:
        user, positive, negative = bench.sampler.sample(config.batch_size, generator)
        items = torch.cat([positive, negative]) + num_users
        optimizer.zero_grad()
        rank = model(adjacency, torch.stack([user.repeat(2), items]))
        loss = model.recommendation_loss(
            *rank.chunk(2), node_id=torch.cat([user, items]).unique(), lambda_reg=config.reg
        )
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="folder that holds gowalla/")
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()

    data = load_dataset(DatasetOptions(dataset="gowalla", root=arguments.root))[0]
    split = InteractionSplit.from_data(data)
    config = TrainConfig(
        dim=arguments.dim, batch_size=arguments.batch_size, select_on="test", reg=1e-4
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bench = Workbench.prepare(split, config, device)
    generator = torch.Generator(device).manual_seed(0)
    edge_index = bench.split.joint_edge_index()
    num_nodes = split.num_users + split.num_items
    index, weight = gcn_norm(edge_index, num_nodes=num_nodes, add_self_loops=False)
    csr = torch.sparse_coo_tensor(index, weight, (num_nodes, num_nodes)).to_sparse_csr()
    steps = {
        "pyg-lth": our_step(bench, generator),
        "PyG, edge_index normalised each step": stock_step(bench, generator, edge_index, True),
        "PyG, torch CSR normalised once": stock_step(bench, generator, csr, False),
    }

    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(arguments.repeats + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= 2:
                times[name].append(time.perf_counter() - start)

    ours, *peers = times.items()
    figures = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "dim": config.dim,
        "batch_size": config.batch_size,
        "milliseconds": {name: statistics.median(taken) * 1e3 for name, taken in times.items()},
        "ratios": {
            name: statistics.median(
                theirs / own for theirs, own in zip(taken, ours[1], strict=True)
            )
            for name, taken in peers
        },
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
