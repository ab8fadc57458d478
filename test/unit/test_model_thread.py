"""All that computes runs on one thread."""

import gc
import threading
import weakref

import pytest

from ttt_kd_ros.ros.model_thread import ModelThread


@pytest.fixture
def model_thread():
    model_thread = ModelThread()
    yield model_thread
    model_thread.close(timeout=5)


def test_calls_from_every_thread_run_on_the_same_one(model_thread):
    seen = [model_thread.run(threading.get_ident)]
    other = threading.Thread(target=lambda: seen.append(model_thread.run(threading.get_ident)))
    other.start()
    other.join()
    assert len(set(seen)) == 1
    assert seen[0] != threading.get_ident()


def test_a_call_returns_what_the_function_returns(model_thread):
    assert model_thread.run(int, "12", base=3) == 5


def test_an_error_reaches_the_caller_and_the_next_call_runs(model_thread):
    with pytest.raises(ValueError, match="invalid literal"):
        model_thread.run(int, "x")
    assert model_thread.run(int, "1") == 1


def test_nothing_of_a_failed_call_is_kept(model_thread):
    def ask():
        scan = threading.Event()
        with pytest.raises(ValueError, match="invalid literal"):
            model_thread.run(lambda _: int("x"), scan)
        return weakref.ref(scan)

    gc.disable()
    try:
        scan = ask()
        model_thread.run(int)
        assert scan() is None
    finally:
        gc.enable()


def test_a_call_waits_for_the_one_before_it(model_thread):
    entered, leave, order = threading.Event(), threading.Event(), []

    def slow():
        entered.set()
        leave.wait(5)
        order.append("slow")

    first = threading.Thread(target=model_thread.run, args=(slow,))
    first.start()
    entered.wait(5)
    second = threading.Thread(target=model_thread.run, args=(order.append, "fast"))
    second.start()
    leave.set()
    first.join()
    second.join()
    assert order == ["slow", "fast"]
