import functools
import http.server
import shutil
import threading
from pathlib import Path

import pytest

from pyg_lth.datasets import AmazonBook, DatasetError, Gowalla, TikTokMMSSL, Yelp2018, registry
from pyg_lth.datasets.files import sha256

TRAIN, TEST = "0 0 1\n1 1\n2 2 0\n", "0 2\n1 0\n"


@pytest.fixture
def server(tmp_path):
    """Serves a folder of files over HTTP on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Shrinks a published data set to the little files above."""

    def shrink(cls, url="http://127.0.0.1:9"):
        entry = registry.DATASETS[cls.name]._replace(users=3, items=3, parts=(5, 0, 2))
        monkeypatch.setitem(registry.DATASETS, cls.name, entry)
        monkeypatch.setattr(cls, "url", url)
        (tmp_path / "train.txt").write_text(TRAIN)
        (tmp_path / "test.txt").write_text(TEST)
        sums = {name: sha256(tmp_path / name) for name in ("train.txt", "test.txt")}
        if cls.checksums:
            monkeypatch.setattr(cls, "checksums", sums)
        if cls.sizes:
            monkeypatch.setattr(cls, "sizes", {"test.txt": len(TEST)})
        return tmp_path / cls.name

    return shrink


@pytest.mark.parametrize("cls", [Yelp2018, Gowalla, AmazonBook])
def test_download(small, server, tmp_path, cls):
    folder, url = server
    root = small(cls, url)
    for name in ("train.txt", "test.txt"):
        shutil.copy(tmp_path / name, folder)
    dataset = cls(root)
    assert dataset.counts == (3, 3, 5, 0, 2)
    assert sorted(path.name for path in (root / "raw").iterdir()) == ["test.txt", "train.txt"]
    shutil.rmtree(folder)
    assert cls(root, force_reload=True).counts == dataset.counts


def test_download_of_corrupt_content(small, server):
    folder, url = server
    root = small(Gowalla, url)
    (folder / "train.txt").write_text("<html>")
    with pytest.raises(DatasetError) as caught:
        Gowalla(root)
    assert f"cannot download {url}/train.txt (" in str(caught.value)
    assert f"put it at {root}/raw/train.txt" in str(caught.value)
    assert not list((root / "raw").iterdir())


def test_download_of_a_missing_file_and_without_network(small, server):
    with pytest.raises(DatasetError, match="404"):
        Gowalla(small(Gowalla, server[1]))
    with pytest.raises(DatasetError, match=r"cannot download http://127\.0\.0\.1:9/train\.txt"):
        Yelp2018(small(Yelp2018))


@pytest.mark.parametrize(
    ("cls", "name", "content", "message"),
    [
        (Gowalla, "test.txt", "0 2\n1 1\n", "not the published file (SHA-256); delete it"),
        (Yelp2018, "test.txt", "0 2\n1 0 2\n", "10 bytes instead of 8; delete it"),
        (Yelp2018, "train.txt", "0 0 1\n1 1\n2 2\n", "4 train where yelp2018 has 5; delete it"),
        (AmazonBook, "test.txt", "0 2\n1 0 2\n", "3 test where amazon-book has 2; delete it"),
        (AmazonBook, "train.txt", "0 0 1\n1 1\n2 2\n3 0\n", "4 users where amazon-book has 3"),
        (AmazonBook, "train.txt", "0 0 1\n1 x\n", "line 2: id 'x' is not an integer"),
    ],
)
def test_wrong_raw_files(small, tmp_path, cls, name, content, message):
    root = small(cls)
    (root / "raw").mkdir(parents=True)
    for file in ("train.txt", "test.txt"):
        shutil.copy(tmp_path / file, root / "raw")
    (root / "raw" / name).write_text(content)
    with pytest.raises(DatasetError) as caught:
        cls(root)
    assert message in str(caught.value) and str(root / "raw") in str(caught.value)


def test_tiktok_mmssl_says_what_to_put_where(tmp_path):
    with pytest.raises(DatasetError) as caught:
        TikTokMMSSL(tmp_path)
    for part in ("raw/train.txt: missing", "HKUDS/MMSSL", "train_mat", "LightGCN text"):
        assert part in str(caught.value)


def test_gowalla(linked):
    dataset = Gowalla(linked("gowalla"))
    assert dataset.counts == (29_858, 40_981, 810_128, 0, 217_242)
    edges = dataset[0]["user", "rates", "item"]
    first = Path(dataset.raw_paths[0]).read_text().split("\n")[0].split()
    assert edges.edge_index[1, edges.edge_index[0] == 0].tolist() == sorted(map(int, first[1:]))


def test_tiktok_mmssl(linked):
    dataset = TikTokMMSSL(linked("tiktok-mmssl"))
    assert dataset.counts == (9_308, 6_710, 59_541, 3_051, 6_130)
    assert dataset[0].validate()
