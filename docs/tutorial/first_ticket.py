"""
Find your first ticket in ten minutes
=====================================

This page trains a recommender, prunes its embedding table round by round, and reads what came of
it. The data are generated, so nothing is downloaded, and the settings are small: all of it takes
half a minute on two CPU cores. The page was run when it was built, and what stands under each step
is what it printed. Where a step is one command on the command line, it says so.
"""

# %%
# Everything below goes to a new folder, which you may delete afterwards.

import subprocess
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from safetensors.torch import load_file

import pyg_lth
from pyg_lth.datasets import Synthetic

work = Path(tempfile.mkdtemp(prefix="pyg-lth-"))

# %%
# Load a data set
# ---------------
#
# A data set holds one graph of users, items and the interactions between them, already split into
# train, validation and test. ``Synthetic`` generates one; ``Gowalla``, ``Yelp2018`` and the others
# are used in the same way, and so is a file of your own: see :doc:`/data`.
#
# On the command line: ``pyg-lth datasets prepare synthetic``.

dataset = Synthetic(work / "data" / "synthetic")
print(dataset)

# %%
# Look at the graph
# -----------------
#
# It is an ordinary PyG ``HeteroData``: ``edge_index`` is train, ``val_edge_label_index`` validation
# and ``edge_label_index`` test.

data = dataset[0]
print(data)

# %%
# Few items take most of the interactions, as in any log of real users. A recommender is worth its
# parameters only if it does better than to show everybody the popular ones, so that ranking stands
# in each report.

_, item = data["user", "rates", "item"].edge_index
popularity = item.bincount().sort(descending=True).values
share = popularity[: len(popularity) // 10].sum() / popularity.sum()
print(f"The most popular tenth of the items has {share:.0%} of the train interactions.")

# %%
# Train the dense model
# ---------------------
#
# Matrix factorisation, since it is the quickest. The learning rate is higher and the patience lower
# than the paper's, which are the defaults, because the data set is small: training ends when five
# evaluations in a row, one each five epochs, have found nothing better on validation.
#
# On the command line:
# ``pyg-lth train --dataset synthetic --model mf --lr 0.005 --patience 5``.

settings = {"model": "mf", "lr": 0.005, "patience": 5}
dense = pyg_lth.train(data, pyg_lth.TrainConfig(**settings))

print(f"popularity  {dense.popularity.test['recall@20']:.4f} Recall@20 on test")
print(f"dense       {dense.dense.test['recall@20']:.4f}")
print(f"best epoch  {dense.dense.best_epoch}")

# %%
# Find tickets
# ------------
#
# A round drops the smallest fifth of the entries that are left, sets the others back to what they
# were before training, and trains again. Eight rounds leave a sixth of the table. With ``run_dir``
# everything is kept in a folder, and a run that was stopped goes on from there.
#
# On the command line: ``pyg-lth prune --dataset synthetic --model mf --lr 0.005 --patience 5
# --rounds 8 --amount 0.2 --out runs/first``.

run = work / "runs" / "first"
config = pyg_lth.PruneConfig(**settings, rounds=8, amount=0.2)
report = pyg_lth.find_tickets(data, config, run_dir=run)

print(report.winner)

# %%
# Read the report
# ---------------
#
# The folder holds the report as JSON and as a table for reading. The command line shows it at the
# end of a run, and whenever it is asked: ``pyg-lth report runs/first``.

command = ["pyg-lth", "report", run.name]
print(subprocess.check_output(command, cwd=run.parent, text=True))

# %%
# A ticket *wins* when its recall is at least the dense model's and better than that of the popular
# items; :doc:`/report` explains every column, and why one seed is a thin ground to stand on.

density = [1.0, *(ticket.density for ticket in report.rounds)]
recall = [result.test["recall@20"] for result in (report.dense, *report.rounds)]
popular = report.popularity.test["recall@20"]

figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
axes.plot(density, recall, "o-", label="tickets")
axes.axhline(recall[0], linestyle="--", color="black", label="dense")
axes.axhline(popular, linestyle=":", color="grey", label="popularity")
axes.set(xlabel="share of the entries that is left", ylabel="Recall@20 on test")
axes.xaxis.set_major_formatter("{x:.0%}")
axes.invert_xaxis()
axes.legend()

# %%
# Look at a mask
# --------------
#
# A mask is a table of booleans, one for each entry of the embedding table, users first. The paper
# prunes all of it by one threshold, so users and items may keep different shares.

winner = report.winner or report.rounds[0]
folder = run / f"round-{winner.round:03d}"
mask = pyg_lth.Mask(load_file(folder / "mask.safetensors")["mask"])
num_users = data["user"].num_nodes

print(f"round {winner.round}: {mask.remaining:,} of {mask.table.numel():,} entries")
print(f"of the users' rows {mask.table[:num_users].float().mean():.1%}")
print(f"of the items' rows {mask.table[num_users:].float().mean():.1%}")

# %%
# The trained table lies beside it, with zeros where the mask is off. So the ticket can rank: here
# are the five best items for user 0, those of train left out.

table = load_file(folder / "best.safetensors")["embedding.weight"]
scores = table[0] @ table[num_users:].t()
users, items = data["user", "rates", "item"].edge_index
scores[items[users == 0]] = -float("inf")
print(scores.topk(5).indices.tolist())

# %%
# Where the files are
# -------------------
#
# All of them are JSON, JSON lines, Markdown or safetensors; :doc:`/report` says what is in which.

for path in sorted(run.rglob("*")):
    if path.is_file() and (path.parent == run or path.parent == folder):
        print(f"{path.relative_to(run)!s:30} {path.stat().st_size:>9,} bytes")

# %%
# What next
# ---------
#
# * The backbone of the paper's best results: ``--model lightgcn``.
# * A table of your own: :doc:`/data`.
# * Other ways to find tickets, and the controls that a ticket should beat: :doc:`/methods`.
# * The paper's own protocol: :doc:`/paper`.
