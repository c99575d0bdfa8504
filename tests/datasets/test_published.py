import contextlib
import functools
import hashlib
import http.server
import shutil
import threading
import time
from pathlib import Path

import pytest

from pyg_lth.datasets import (
    AmazonBook,
    DatasetError,
    Gowalla,
    TikTokMMSSL,
    Yelp2018,
    download,
    registry,
)
from pyg_lth.datasets.files import sha256

TRAIN, TEST = "0 0 1\n1 1\n2 2 0\n", "0 2\n1 0\n"


@pytest.fixture
def serve():
    """Runs HTTP servers on this machine."""
    with contextlib.ExitStack() as stack:

        def start(handler):
            running = stack.enter_context(
                http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
            )
            # Before the thread is waited for, it has to be told to end.
            thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(running.shutdown)
            return f"http://127.0.0.1:{running.server_port}"

        yield start


@pytest.fixture
def server(tmp_path, serve):
    """Serves a folder of files over HTTP on this machine."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    return folder, serve(functools.partial(Quiet, directory=folder))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Shrinks a published data set to the little files above."""

    def shrink(cls, url="http://127.0.0.1:9"):
        valid = 1 if cls is TikTokMMSSL else 0
        entry = registry.DATASETS[cls.name]._replace(users=3, items=3, parts=(5, valid, 2))
        monkeypatch.setitem(registry.DATASETS, cls.name, entry)
        monkeypatch.setattr(cls, "url", url, raising=False)
        (tmp_path / "train.txt").write_text(TRAIN)
        (tmp_path / "test.txt").write_text(TEST)
        sums = {name: sha256(tmp_path / name) for name in ("train.txt", "test.txt")}
        if cls.checksums:
            monkeypatch.setattr(cls, "checksums", sums)
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


class Misbehaves(http.server.BaseHTTPRequestHandler):
    """Cuts what it sends, sends slowly, sends on to elsewhere, or for ever."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        if kind in ("loop", "moved"):
            self.send_response(302)
            self.send_header("Location", "/loop/train.txt" if kind == "loop" else "/whole/x")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(TRAIN)))
        self.end_headers()
        if kind == "slow":
            time.sleep(2)
        self.wfile.write(TRAIN.encode()[: 5 if kind == "cut" else None])

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("kind", "reason"), [("cut", "5 bytes read"), ("slow", "timed out"), ("loop", "redirects")]
)
def test_download_that_goes_wrong_leaves_nothing(small, serve, monkeypatch, kind, reason):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    root = small(Gowalla, f"{serve(Misbehaves)}/{kind}")
    with pytest.raises(DatasetError, match=reason) as caught:
        Gowalla(root)
    assert f"/{kind}/train.txt (" in str(caught.value) and "\n" not in str(caught.value)
    assert not list((root / "raw").iterdir())


def test_download_follows_a_redirect_and_checks_what_comes(serve, tmp_path):
    url, path = f"{serve(Misbehaves)}/moved/train.txt", tmp_path / "train.txt"
    content = TRAIN.encode()
    right = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    download.download(url, path, right)
    assert path.read_text() == TRAIN
    with pytest.raises(DatasetError, match="another checksum than the published file"):
        download.download(url, path, right[::-1])
    assert path.read_text() == TRAIN and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("cls", [Yelp2018, Gowalla, AmazonBook])
def test_what_is_pinned_and_where_from(cls):
    assert sorted(cls.checksums) == ["test.txt", "train.txt"]
    assert "/07e2ac6d10b42ce446c9b337d41ee9c4be4b1cf6/" in cls.url


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("test.txt", "0 2\n1 0 2\n", "3 test where tiktok-mmssl has 2; take train_mat"),
        ("train.txt", "0 0 1\n1 1\n2 2\n3 0\n", "4 users where tiktok-mmssl has 3"),
        ("train.txt", "0 0 1\n1 x\n", "line 2: id 'x' is not an integer"),
        ("test.txt", "0 2\n2147483646 0\n", "user 2,147,483,646 is far beyond the 4 users"),
        ("test.txt", "0 2147483646\n1 0\n", "item 2,147,483,646 is far beyond the 4 items"),
    ],
)
def test_wrong_raw_files_without_a_checksum(small, tmp_path, name, content, message):
    root = small(TikTokMMSSL)
    put(tmp_path, root / "raw", **{name: content})
    (root / "raw" / "valid.txt").write_text("2 1\n")
    with pytest.raises(DatasetError) as caught:
        TikTokMMSSL(root)
    assert message in str(caught.value) and str(root / "raw") in str(caught.value)


@pytest.mark.parametrize("name", ["train.txt", "test.txt"])
@pytest.mark.parametrize("cls", [Yelp2018, Gowalla, AmazonBook])
def test_raw_files_that_are_not_the_published_ones(small, tmp_path, cls, name):
    root = small(cls)
    put(tmp_path, root / "raw", **{name: "0 2\n1 0 2\n"})
    with pytest.raises(DatasetError) as caught:
        cls(root)
    assert f"raw/{name}: not the published file (checksum); delete it" in str(caught.value)


def put(source, raw, **changed):
    raw.mkdir(parents=True)
    for file in ("train.txt", "test.txt"):
        shutil.copy(source / file, raw)
    for file, content in changed.items():
        (raw / file).write_text(content)


def test_lists_of_original_ids(small, tmp_path):
    root = small(Gowalla)
    put(tmp_path, root / "raw")
    plain = Gowalla(root)
    assert plain.user_ids.tolist() == [0, 1, 2]
    (root / "raw" / "user_list.txt").write_text("org_id remap_id\n343 1\n20 0\n7 2\n")
    assert Gowalla(root).processed_paths == plain.processed_paths
    (root / "raw" / "item_list.txt").write_text("org_id remap_id other_id\nb c 1 x\na 0 y\n\nd 2 z")
    dataset = Gowalla(root)
    assert dataset.user_ids.tolist() == [20, 343, 7]
    assert dataset.item_ids.tolist() == ["a", "b c", "d"]
    assert dataset[0]["user", "rates", "item"].edge_index.equal(
        plain[0]["user", "rates", "item"].edge_index
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("7 0\n8 1\n9 2\n", "line 1: no header 'org_id remap_id'"),
        ("org_id remap_id\n7 0\n8 1\n", "index 2 has no id; add its line"),
        ("org_id remap_id\n7 0\n8 0\n9 1\n", "line 3: '8 0' is no id with an index of its own"),
        ("org_id remap_id\n7 0\n8 3\n9 1\n", "line 3: '8 3' is no id with an index"),
        ("org_id remap_id\n7 0\n8\n9 1\n", "line 3: '8' is no id"),
        ("org_id remap_id\n7 0\n8 -1\n9 1\n", "line 3: '8 -1' is no id"),
        ("", "the file is empty"),
    ],
)
def test_bad_lists_of_original_ids(small, tmp_path, content, message):
    root = small(Gowalla)
    put(tmp_path, root / "raw", **{name: content for name in ("user_list.txt", "item_list.txt")})
    with pytest.raises(DatasetError) as caught:
        Gowalla(root)
    assert "user_list.txt" in str(caught.value) and message in str(caught.value)


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
    assert dataset.user_ids[:2].tolist() == [343, 5258] and dataset.item_ids[0] == 8975


def test_tiktok_mmssl(linked):
    dataset = TikTokMMSSL(linked("tiktok-mmssl"))
    assert dataset.counts == (9_308, 6_710, 59_541, 3_051, 6_130)
    assert dataset[0].validate()


def test_yelp2018(linked):
    dataset = Yelp2018(linked("yelp2018"))
    assert dataset.counts == (31_668, 38_048, 1_237_259, 0, 324_147)
