import os
import select
import signal
import threading

import pytest

from harness.interrupts import Interrupts


def in_another_thread(seconds: float = 0.1) -> None:
    """A signal that the main thread's wait isn't interrupted by, as the kernel may choose."""
    threading.Timer(seconds, signal.raise_signal, (signal.SIGINT,)).start()


def test_an_interrupt_ends_a_select_whichever_thread_gets_it() -> None:
    with Interrupts() as interrupts:
        in_another_thread()
        assert select.select([interrupts], [], [], 30)[0] == [interrupts]
        assert interrupts.take() == 1
        assert interrupts.take() == 0


def test_an_interrupt_is_raised_in_a_wait_whichever_thread_gets_it() -> None:
    reader, _ = os.pipe()
    with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt), interrupts.raised():
        in_another_thread()
        os.read(reader, 1)


def test_an_interrupt_is_raised_once_for_a_wait() -> None:
    with Interrupts() as interrupts:
        for _ in range(20):
            with pytest.raises(KeyboardInterrupt), interrupts.raised():
                signal.raise_signal(signal.SIGINT)
        assert interrupts.take() == 0


def test_an_interrupt_before_a_wait_was_meant_for_something_else() -> None:
    with Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        with interrupts.raised():
            pass
        assert interrupts.take() == 0


def test_afterwards_ctrl_c_is_what_it_was() -> None:
    with Interrupts():
        pass
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
