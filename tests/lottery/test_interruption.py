import os
import signal
import threading

import pytest

from pyg_lth.lottery.interruption import deferred_interrupt


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_ctrl_c_is_held_back_and_remembered():
    with deferred_interrupt() as interrupted:
        assert not interrupted()
        press_ctrl_c()
        assert interrupted()


def test_the_second_ctrl_c_interrupts_at_once():
    with deferred_interrupt():
        press_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()


def test_afterwards_ctrl_c_is_what_it_was():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), deferred_interrupt():
        assert signal.getsignal(signal.SIGINT) is not before
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_changes():
    before, seen = signal.getsignal(signal.SIGINT), []

    def look():
        with deferred_interrupt() as interrupted:
            seen.extend([signal.getsignal(signal.SIGINT), interrupted()])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before, False]
