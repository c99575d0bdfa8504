import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch_geometric.data import HeteroData
from torch_geometric.transforms import ToUndirected

from pyg_lth.datasets import BipartiteDataset, DatasetError, InteractionGraph, Synthetic
from pyg_lth.datasets.base import Interactions

TRAIN = [[0, 0, 1, 2], [1, 0, 2, 1]]
TEST = [[0, 1], [2, 0]]


class Tiny(BipartiteDataset):
    name = "tiny"
    raw_file_names = ()

    def __init__(self, root, train=TRAIN, valid=None, test=TEST, shape=(4, 3), **kwargs):
        self.interactions = Interactions(
            np.array(train), None if valid is None else np.array(valid), np.array(test), *shape
        )
        super().__init__(root, **kwargs)

    def read(self):
        return self.interactions


def edges(dataset):
    return dataset[0]["user", "rates", "item"]


def test_form(tmp_path):
    dataset = Tiny(tmp_path, valid=[[2], [0]])
    data = dataset[0]
    assert isinstance(data, HeteroData) and len(dataset) == 1
    assert data.node_types == ["user", "item"] and data.edge_types == [("user", "rates", "item")]
    assert (data["user"].num_nodes, data["item"].num_nodes) == (4, 3)
    assert edges(dataset).edge_index.tolist() == [[0, 0, 1, 2], [0, 1, 2, 1]]
    assert edges(dataset).val_edge_label_index.tolist() == [[2], [0]]
    assert edges(dataset).edge_label_index.tolist() == TEST
    assert all(value.dtype == torch.int64 for value in edges(dataset).values())
    assert dataset.counts == (4, 3, 4, 1, 2)
    assert repr(dataset) == "Tiny(users=4, items=3, train=4, valid=1, test=2)"
    assert dataset.num_classes == 0 and dataset.num_features == {"user": 0, "item": 0}
    assert dataset.user_ids.tolist() == [0, 1, 2, 3] and dataset.item_ids.tolist() == [0, 1, 2]
    assert dataset.copy()[0].validate()
    undirected = ToUndirected()(data)
    assert undirected["item", "rev_rates", "user"].edge_index.shape == (2, 4)


def test_without_validation(tmp_path):
    assert "val_edge_label_index" not in edges(Tiny(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": [[0, 1, 0], [1, 1, 1]]}, "train has a pair twice (user 0, item 1); remove one"),
        ({"test": [[0, 1], [1, 0]]}, "test shares 1 pairs with train (first: user 0, item 1); rem"),
        ({"valid": [[0], [1]]}, "valid shares 1 pairs with train"),
        ({"valid": [[0], [2]]}, "test shares 1 pairs with valid"),
        ({"test": [[], []]}, "no interactions are left for test"),
        ({"shape": (2, 3)}, "train has a user or item beyond the 2 users"),
        ({"train": [[0, 1], [-1, 1]]}, "train has a user or item beyond"),
    ],
)
def test_broken_promises(tmp_path, changes, message):
    with pytest.raises(DatasetError) as caught:
        Tiny(tmp_path, **changes)
    assert str(caught.value).startswith(f"tiny: {message}")
    assert not list(tmp_path.rglob("*.safetensors")) and not list(tmp_path.rglob("*.tmp"))


def test_transforms(tmp_path):
    def mark(data):
        data.marks = data.marks + 1 if "marks" in data else 1
        data.anything = {"of": [slice(None), object]}
        return data

    for _ in range(2):
        dataset = Tiny(tmp_path, pre_transform=mark)
        assert dataset[0].marks == 1 and dataset[0].anything["of"][1] is object
    assert "marks" not in Tiny(tmp_path)[0]
    dataset = Tiny(tmp_path, transform=ToUndirected())
    assert ("item", "rev_rates", "user") in dataset[0].edge_types
    assert dataset.num_classes == 0


def test_cache_and_force_reload(tmp_path):
    Tiny(tmp_path)
    (path,) = tmp_path.rglob("*.safetensors")
    before = path.stat().st_mtime_ns
    Tiny(tmp_path)
    assert path.stat().st_mtime_ns == before
    other = Tiny(tmp_path, test=[[3], [0]], force_reload=True)
    assert edges(other).edge_label_index.tolist() == [[3], [0]]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=r"safetensors: damaged .*delete it"):
        Tiny(tmp_path)


def test_variants_do_not_share_a_cache(tmp_path):
    first = Synthetic(tmp_path, 50, 40, 400, seed=0)
    second = Synthetic(tmp_path, 50, 40, 400, seed=1)
    assert first.processed_paths != second.processed_paths
    again = Synthetic(tmp_path, 50, 40, 400, seed=0)
    assert edges(again).edge_index.equal(edges(first).edge_index)
    assert not edges(second).edge_index.equal(edges(first).edge_index)


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_pickle_is_loaded(tmp_path):
    trap = tmp_path / "sprung"
    with pytest.raises(FileExistsError):
        pickle.loads(pickle.dumps(Trap(tmp_path)))
    dataset = Tiny(tmp_path / "tiny")
    processed = Path(dataset.processed_dir)
    for name in ("pre_transform.pt", "pre_filter.pt", "data.pt", Path(dataset.processed_paths[0])):
        torch.save(Trap(trap), processed / name)
    with pytest.raises(DatasetError, match="damaged"):
        Tiny(tmp_path / "tiny", transform=ToUndirected())
    Tiny(tmp_path / "tiny", pre_transform=ToUndirected(), force_reload=True)
    assert not trap.exists()


def test_nothing_is_printed(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    Tiny(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="file"):
        Tiny(tmp_path / "file")


def test_processes_prepare_one_root_together(tmp_path):
    script = (
        "import sys; from pyg_lth.datasets import Synthetic\n"
        "for _ in range(20): Synthetic(sys.argv[1], 60, 40, 500, force_reload=True)"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(120) for process in processes] == [0, 0]
    (path,) = (tmp_path / "processed").iterdir()
    assert path.suffix == ".safetensors"
    assert Synthetic(tmp_path, 60, 40, 500).counts.train > 0


def test_processed_files_of_before_are_read(tmp_path):
    dataset = Tiny(tmp_path, valid=[[2], [0]])
    assert dataset.notes == ()
    (path,) = tmp_path.rglob("*.safetensors")
    # Older files have no metadata.
    save_file(load_file(path), path)
    again = Tiny(tmp_path, valid=[[2], [0]])
    assert again.notes == () and isinstance(again[0], InteractionGraph)
    assert edges(again).val_edge_label_index.equal(edges(dataset).val_edge_label_index)


def test_notes_are_kept_with_the_processed_file(tmp_path):
    class Noted(Tiny):
        def read(self):
            return super().read()._replace(notes=("3 rows dropped",))

    assert Noted(tmp_path).notes == Noted(tmp_path).notes == ("3 rows dropped",)
