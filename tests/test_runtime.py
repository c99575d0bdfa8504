import ctypes
import os

import pytest

from pyg_lth import runtime

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "THP_MEM_ALLOC_ENABLE")


class Library:
    """Stands in for the C library and notes what it is asked to set."""

    def __init__(self):
        self.settings = {}

    def mallopt(self, name, value):
        self.settings[name] = value


@pytest.fixture(autouse=True)
def library(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "")  # So that what tune() sets is taken back.
        monkeypatch.delenv(name)
    stand_in = Library()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: stand_in)
    return stand_in


def test_threads_hardly_spin_and_memory_is_kept_on_large_pages(library):
    runtime.tune()
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    assert library.settings == {-4: 0, -1: 2**31 - 1}


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")
    runtime.tune()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"


def test_a_policy_of_waiting_decides_about_spinning(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    runtime.tune()
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("missing", [OSError, AttributeError])
def test_a_c_library_without_mallopt_will_do(monkeypatch, missing):
    def load(name):
        raise missing

    monkeypatch.setattr(ctypes, "CDLL", load)
    runtime.tune()
