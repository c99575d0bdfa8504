"""implicit: an epoch of its BPR, and its ranking evaluation.

Its BPR is stochastic descent in C++, one triplet at a time, on its own threads: it has neither
batches nor Adam. OpenBLAS is held to one thread, as implicit asks.
"""

import os
import sys
from typing import Any

import numpy as np
from implicit.cpu.bpr import BayesianPersonalizedRanking
from implicit.evaluation import ranking_metrics_at_k
from scipy.sparse import csr_matrix

from benchmarks.contender import serve
from benchmarks.data import Interactions, load_embedding
from benchmarks.measuring import Task

THREADS = len(os.sched_getaffinity(0))


def main() -> None:
    interactions = Interactions.load(sys.argv[1])
    num_users = interactions.num_users

    def matrix(index: Any) -> csr_matrix:
        ones = np.ones(index.shape[1], dtype=np.float32)
        return csr_matrix((ones, tuple(index)), shape=(num_users, interactions.num_items))

    train, test = matrix(interactions.train), matrix(interactions.test)

    def build(task: str, dim: int = 0, embedding: str = "") -> Task:
        model = BayesianPersonalizedRanking(factors=dim, num_threads=THREADS)

        def epochs(count: int) -> None:
            model.iterations = count
            model.fit(train, show_progress=False)

        def evaluate(count: int) -> dict[str, float]:
            for _ in range(count):
                metrics = ranking_metrics_at_k(
                    model, train, test, K=20, show_progress=False, num_threads=THREADS
                )
            return {name: float(value) for name, value in metrics.items()}

        if task == "epoch":
            return Task(epochs)
        factors = load_embedding(sys.argv[1], embedding)
        model.user_factors, model.item_factors = factors[:num_users], factors[num_users:]
        return Task(evaluate)

    serve(build, "implicit", "numpy", "scipy")


if __name__ == "__main__":
    main()
