"""A round of a long run takes as long and writes as much as one of a short run."""

import time
from pathlib import Path

import pytest

from pyg_lth import Callback, find_tickets

ROUNDS = 5000


def bytes_written():
    """All that this process has written so far, whatever to."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["wchar"])


class Note(Callback):
    """Keeps what was written and how long was computed until the end of each round."""

    def __init__(self):
        self.bytes, self.seconds = [], []

    def on_round_end(self, result):
        self.bytes.append(bytes_written())
        self.seconds.append(time.process_time())


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("rounds", [pytest.param(ROUNDS, marks=pytest.mark.torture), 160])
def test_time_and_bytes_a_round_stay(small_graph, quick_config, tmp_path, rounds):
    config = quick_config(
        model="mf", rounds=rounds, amount=0.01, max_epochs=1, eval_every=1, patience=1
    )
    note = Note()
    find_tickets(small_graph, config, run_dir=tmp_path, callback=note)
    half = rounds // 2

    def grown(values):
        return (values[-1] - values[half]) / (values[half] - values[0])

    print(f"second half against the first: bytes {grown(note.bytes):.2f}")
    print(f"seconds of the processor {grown(note.seconds):.2f}")
    # The report, which holds all rounds, is written ever less often, so now and then at once.
    assert grown(note.bytes) < 1.5
    if rounds == ROUNDS:
        assert grown(note.seconds) < 1.5
