"""Stock PyG: its LightGCN, trained and evaluated as in its own example."""

import itertools
import sys
from typing import Any

import torch
from torch import Tensor
from torch_geometric import nn
from torch_geometric.nn.conv.gcn_conv import gcn_norm
from torch_geometric.utils import degree

from benchmarks import ours
from benchmarks.contender import serve
from benchmarks.data import Interactions, load_embedding
from benchmarks.measuring import Task
from pyg_lth.training.problem import Problem

USERS_AT_ONCE = 8192  # As in the example.


def training_step(problem: Problem, adjacency: str, layers: int = 3) -> Task:
    """Sampling, propagation, PyG's loss, backward and Adam on one batch.

    It takes the triplets that pyg-lth takes, and they cost it what they cost pyg-lth: the example's
    own loader, which collates one index at a time, is slower.

    Args:
        problem: Settings, interactions and sampler.
        adjacency: ``edge_index``, normalised in each step as in the example, or ``csr``, a torch
            CSR matrix normalised once.
        layers: Propagation layers.
    """
    config, split = problem.config, problem.split
    num_nodes = split.num_users + split.num_items
    user, item = split.train[0], split.train[1] + split.num_users
    graph = torch.stack([torch.cat([user, item]), torch.cat([item, user])])
    if adjacency == "csr":
        index, weight = gcn_norm(graph, num_nodes=num_nodes, add_self_loops=False)
        graph = torch.sparse_coo_tensor(index, weight, (num_nodes, num_nodes)).to_sparse_csr()
    model = nn.LightGCN(num_nodes, config.dim, layers, normalize=adjacency == "edge_index")
    model.to(problem.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    batches, share = ours.draw(problem)
    source = itertools.cycle(batches)

    def run(count: int) -> None:
        for batch in itertools.islice(source, count):
            parts = problem.sampler.layout.split(batch)
            user, positive, negative = parts.user, parts.positive, parts.negative[0]
            items = torch.cat([positive, negative]) + split.num_users
            optimizer.zero_grad()
            rank = model(graph, torch.stack([user.repeat(2), items]))
            loss = model.recommendation_loss(
                *rank.chunk(2), node_id=torch.cat([user, items]).unique(), lambda_reg=config.reg
            )
            loss.backward()
            optimizer.step()

    return Task(run, share)


def evaluation(num_users: int, train: Tensor, test: Tensor, embedding: Tensor, k: int = 20) -> Task:
    """The operations of the example's evaluation: precision and recall at ``k``, from embeddings.

    The example propagates first; that is left out on both sides, which rank the same embeddings.

    Args:
        num_users: The number of users.
        train: Interactions to leave out of the ranking, shape ``[2, E]``.
        test: The ground truth, in the same form.
        embedding: Users then items, shape ``[num_nodes, dim]``.
        k: Length of the ranked list.
    """
    users, items = embedding[:num_users], embedding[num_users:]

    def evaluate() -> dict[str, float]:
        precision = recall = ranked = 0.0
        for start in range(0, num_users, USERS_AT_ONCE):
            scores = users[start : start + USERS_AT_ONCE] @ items.t()
            seen = (train[0] >= start) & (train[0] < start + USERS_AT_ONCE)
            scores[train[0, seen] - start, train[1, seen]] = float("-inf")
            wanted = (test[0] >= start) & (test[0] < start + USERS_AT_ONCE)
            truth = torch.zeros_like(scores, dtype=torch.bool)
            truth[test[0, wanted] - start, test[1, wanted]] = True
            wanted_items = degree(test[0, wanted] - start, num_nodes=scores.size(0))
            hits = truth.gather(1, scores.topk(k, dim=-1).indices).sum(dim=-1)
            precision += float((hits / k).sum())
            recall += float((hits / wanted_items.clamp(1e-6)).sum())
            ranked += int((wanted_items > 0).sum())
        return {"precision": precision / ranked, "recall": recall / ranked}

    def run(count: int) -> dict[str, float]:
        with torch.no_grad():
            return [evaluate() for _ in range(count)][-1]

    return Task(run)


def main() -> None:
    interactions = Interactions.load(sys.argv[1])
    split = ours.to_split(interactions)

    def build(task: str, **case: Any) -> Task:
        if task == "evaluate":
            embedding = torch.from_numpy(load_embedding(sys.argv[1], case["embedding"]))
            return evaluation(split.num_users, split.train, split.test, embedding)
        # MF has no propagation, so that only the sampler is prepared.
        problem = ours.prepare(split, model="mf", dim=case["dim"], batch_size=case["batch_size"])
        return training_step(problem, case["adjacency"])

    serve(build, "torch-geometric", "torch")


if __name__ == "__main__":
    main()
