"""Signals that ask this very process to stop."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from dr_cli import interrupts

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


@pytest.fixture(autouse=True)
def _handlers_as_they_were():
    before = {one: signal.getsignal(one) for one in interrupts.SIGNALS}
    for one in before:  # of a shell's background, SIGINT is ignored
        signal.signal(one, signal.default_int_handler)
    yield
    for one, handler in before.items():
        signal.signal(one, handler)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_is_told_and_raised_with_its_exit_code(number, code):
    told = []
    listening = interrupts.listen(lambda: told.append(threading.current_thread()))
    with pytest.raises(interrupts.Interrupted) as caught, listening:
        os.kill(os.getpid(), number)
    assert caught.value.exit_code == code
    assert len(told) == 1
    assert told[0] is not threading.main_thread()
    assert signal.getsignal(number) is signal.SIG_DFL  # a further one ends it without a word


def test_deferred_it_is_told_at_once_and_raised_at_the_end():
    told, done = threading.Event(), []

    def work():
        with interrupts.deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert told.wait(60)
            assert interrupts.asked()
            done.append("to its end")
        done.append("and further")

    with pytest.raises(interrupts.Interrupted), interrupts.listen(told.set):
        work()
    assert done == ["to its end"]


def test_what_is_ignored_stays_so_and_handlers_come_back():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as of nohup
    before = signal.getsignal(signal.SIGINT)
    with interrupts.listen(lambda: None):
        os.kill(os.getpid(), signal.SIGHUP)
        interrupts.check()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_signal_ends_it_at_once():
    """Even where the main thread waits for something that never comes."""
    code = (
        "import os, signal, threading\nfrom dr_cli import interrupts\n"
        "def told():\n    print('told', flush=True)\n"
        "for one in interrupts.SIGNALS:\n    signal.signal(one, signal.SIG_DFL)\n"
        "with interrupts.listen(told), interrupts.deferred():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    threading.Event().wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "told\n", "")
