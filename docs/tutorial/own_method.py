"""
A method and a backbone of your own
===================================

Nothing in the package needs an edit to run a search of another kind. This page, a file outside the
package, adds a criterion that scores entries in its own way and a backbone with parameters of its
own, and sets both against those that are built in. It was run when it was built.
"""

# %%
# A small graph to try things on, and settings that take a few seconds.

import tempfile
from pathlib import Path

import torch
from torch import nn

import pyg_lth
from pyg_lth.datasets import Synthetic
from pyg_lth.lottery import evidence, rewinding
from pyg_lth.results.text import conclusion

work = Path(tempfile.mkdtemp(prefix="pyg-lth-"))
data = Synthetic(work / "data" / "synthetic", 400, 300, 9000)[0]
quick = dict(dim=16, lr=0.01, max_epochs=20, eval_every=2, patience=4, rounds=4, amount=0.4)

# %%
# A criterion of your own
# -----------------------
#
# A method is a small strategy of three parts: a **criterion** scores the entries of a table, the
# **evidence** says whose table, and **rewind** says where the survivors restart. The selection is
# not part of it: whatever the scores are, exactly as many entries survive as the round may keep.
#
# Magnitude favours users and items with long rows, which are those of many interactions. This
# criterion asks instead how large an entry is within its row, so that every row keeps a share.


def share_of_row(weight, generator, gradient):
    """Score an entry by its share of its row's length."""
    return weight.abs() / weight.norm(dim=1, keepdim=True).clamp(min=1e-12)


pyg_lth.register_method(
    "share-of-row",
    pyg_lth.Method(share_of_row, evidence.previous, rewinding.to_initialization),
)

# %%
# From here on its name is as good as any other. The report says that the method is a guest, and
# where it came from.

reports = {}
for method in ("imp", "share-of-row"):
    config = pyg_lth.PruneConfig(model="mf", method=method, **quick)
    reports[method] = pyg_lth.find_tickets(data, config, run_dir=work / method)

for method, report in reports.items():
    recall = ", ".join(f"{t.density:.0%}: {t.test['recall@20']:.3f}" for t in report.rounds)
    print(f"{method:>12}  dense: {report.dense.test['recall@20']:.3f}, {recall}")
print(reports["share-of-row"].guests)

# %%
# A backbone of your own
# ----------------------
#
# A backbone is a model on the joint table of users and items. It starts from ``TableModel`` and
# says what the embeddings are: ``propagation @ x`` multiplies by the normalised adjacency, forward
# and backward. This one learns how much each layer counts. Its ``mix`` is trained with the table,
# rewound with it and kept beside it in the run folder, but it is never pruned.


class MixedLayers(pyg_lth.TableModel):
    """LightGCN with layer weights that are learned."""

    def __init__(self, num_nodes, config):
        super().__init__(num_nodes, config.dim)
        self.mix = nn.Parameter(torch.zeros(config.layers + 1))

    def get_embedding(self, propagation):
        layers = [self.embedding.weight]
        while len(layers) < len(self.mix):
            layers.append(propagation @ layers[-1])
        return sum(w * layer for w, layer in zip(self.mix.softmax(dim=0), layers, strict=True))


pyg_lth.register_backbone("mixed-layers", pyg_lth.Backbone(MixedLayers), layers=2)
config = pyg_lth.PruneConfig(model="mixed-layers", **quick)
report = pyg_lth.find_tickets(data, config, run_dir=work / "mixed")
print(conclusion(report))

# %%
# For the command line, and for others
# ------------------------------------
#
# What is registered in a script is known to that script. To have it on the command line, in sweeps
# and in seeds that run side by side, give it to a package of its own, and name the module that
# registers it in that package's ``pyproject.toml``:
#
# .. code-block:: toml
#
#     [project.entry-points."pyg_lth.plugins"]
#     mine = "my_package.guests"
#
# Once that is installed, ``pyg-lth prune --method share-of-row`` works like any other method,
# ``pyg-lth doctor`` lists the plugin, and a plugin that cannot be imported is one line of warning
# and nothing more. A loss joins by ``register_loss``; see :doc:`/api/search`.
