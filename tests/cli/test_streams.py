import io
import os
import sys

import pytest

from pyg_lth.cli.streams import unbreakable_output


class Dead(io.StringIO):
    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Dead(), None], ids=["dead", "closed"])
def test_output_that_nobody_reads_ends_nothing(monkeypatch, stream):
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with unbreakable_output():
        print("lost")
        print("lost too", file=sys.stderr, flush=True)
    assert sys.stdout is stream and sys.stderr is stream


def test_a_pipe_whose_reader_is_gone_ends_nothing(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with unbreakable_output():
            for _ in range(3):
                print("lost", flush=True)


def test_what_is_no_text_is_written_as_escapes(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    with unbreakable_output():
        print("log\udcff.csv")
    assert stream.buffer.getvalue() == b"log\\udcff.csv\n"
