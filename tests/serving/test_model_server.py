"""The model's process as its clients find it: real sockets and threads, and a model that a test holds back."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mad_backend.core.labels import LabelMap
from mad_backend.core.records import Frame
from mad_backend.errors import AbandonedError, BusyError, MadError, ModelError
from mad_backend.serving.model_client import ModelConnection, ModelGoneError
from mad_backend.serving.wire import frame_parts
from tests.serving.gated_model import GatedModel, are_answers, ask, frame, frames_of, serving, until


def test_frames_come_back_as_label_maps_of_their_own_shapes_in_order(model: GatedModel) -> None:
    model.gate.set()
    frames = [frame(f"a/{n}", n, (1 + n % 7, 1 + n % 5)) for n in range(50)]
    with serving(model) as served, ModelConnection(served.path) as connection:
        assert connection.predict([]) == []
        are_answers(connection.predict(frames), frames)
        are_answers(connection.predict(frames[:1]), frames[:1])
    assert model.asked == [f.image_id for f in frames] + ["a/0"]


def test_a_frame_arrives_as_it_was_sent(model: GatedModel) -> None:
    model.gate.set()
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    sent = Frame("Größe \ud800", pixels[:, ::-1], (4000, 3000), "s3://b/ä.jpg")
    with serving(model) as served:
        (answer,) = ask(served.path, [sent])
    np.testing.assert_array_equal(answer, pixels[:, ::-1, 0])
    (got,) = model.seen
    assert (got.image_id, got.size, got.address) == (sent.image_id, sent.size, sent.address)
    np.testing.assert_array_equal(got.rgb, sent.rgb)
    assert got.rgb.flags.writeable
    assert got.rgb.flags.c_contiguous


def test_frames_of_one_call_fill_batches_although_the_model_is_idle(model: GatedModel) -> None:
    model.gate.set()
    with serving(model, batch_size=4) as served:
        ask(served.path, frames_of("a", 10))
    assert [len(batch) for batch in model.batches] == [4, 4, 2]


def test_a_single_frame_waits_for_no_other(model: GatedModel) -> None:
    model.gate.set()
    with serving(model, batch_size=16) as served, ModelConnection(served.path) as connection:
        for n in range(3):
            connection.predict([frame(f"a/{n}")])
    assert model.batches == [["a/0"], ["a/1"], ["a/2"]]


def test_batches_are_filled_in_turn_so_that_a_long_request_starves_no_short_one(
    model: GatedModel, threads: ThreadPoolExecutor
) -> None:
    long, first = frames_of("long", 30), [frame("first")]
    shorts = [[frame(f"short/{n}", 9 + n)] for n in range(5)]
    with serving(model, batch_size=4) as served:
        asked = [threads.submit(ask, served.path, first)]
        until(lambda: model.batches == [["first"]])
        asked.append(threads.submit(ask, served.path, long))
        served.until_waiting(1 + 8)
        for n, short in enumerate(shorts, start=1):
            asked.append(threads.submit(ask, served.path, short))
            served.until_waiting(9 + n)
        model.gate.set()
        for request, frames in zip(asked, [first, long, *shorts], strict=True):
            are_answers(request.result(20), frames)
    assert model.batches[1:3] == [
        ["long/0", "short/0", "short/1", "short/2"],
        ["short/3", "short/4", "long/1", "long/2"],
    ]
    assert [i for i in model.asked if i.startswith("long")] == [f.image_id for f in long]


def test_sixteen_clients_at_once_have_every_answer_once(
    model: GatedModel, threads: ThreadPoolExecutor
) -> None:
    model.gate.set()
    seen: list[tuple[int, float]] = []

    def client(number: int) -> int:
        for request in range(4):
            frames = frames_of(f"{number}/{request}", 1 + (number * 5 + request) % 9, (17, 31))
            are_answers(ask(served.path, frames), frames)
        return number

    with serving(model, batch_size=4, on_batch=lambda *batch: seen.append(batch)) as served:
        assert list(threads.map(client, range(16))) == list(range(16))
        assert served.server.waiting() == 0
    wanted = [f"{n}/{r}/{i}" for n in range(16) for r in range(4) for i in range(1 + (n * 5 + r) % 9)]
    assert sorted(model.asked) == sorted(wanted)
    assert max(len(batch) for batch in model.batches) <= 4
    assert [frames for frames, _ in seen] == [len(batch) for batch in model.batches]
    assert all(seconds >= 0 for _, seconds in seen)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_frames_larger_than_what_sockets_hold_pass_both_ways(
    batch_size: int, threads: ThreadPoolExecutor
) -> None:
    model = GatedModel(side=1024)
    frames = frames_of("a", 20, (1024, 900))
    with serving(model, batch_size=batch_size) as served:
        asked = [threads.submit(ask, served.path, frames) for _ in range(2)]
        until(lambda: bool(model.batches))
        model.gate.set()
        for request in asked:
            are_answers(request.result(20), frames)


def test_only_so_many_frames_are_taken_in_before_answers_leave(
    model: GatedModel, threads: ThreadPoolExecutor
) -> None:
    frames = frames_of("a", 100)
    most = 0
    with serving(model, batch_size=2) as served:
        one = threads.submit(ask, served.path, frames)
        served.until_waiting(4)
        others = [threads.submit(ask, served.path, frames) for _ in range(7)]
        served.until_connected(8)
        until(lambda: served.server.waiting() >= 8)
        for _ in range(50):
            time.sleep(0.001)
            most = max(most, served.server.waiting())
        model.gate.set()
        for request in [one, *others]:
            are_answers(request.result(20), frames)
    assert most <= 4 * 2 + 7


def test_a_client_who_reads_no_answers_holds_up_nobody(model: GatedModel) -> None:
    model.gate.set()
    big = frame("deaf", 1, (32, 32))
    with serving(model, batch_size=2) as served, socket.socket(socket.AF_UNIX) as deaf:
        deaf.connect(str(served.path))
        deaf.settimeout(0.2)
        with pytest.raises(TimeoutError):
            deaf.sendall(b"".join(bytes(part) for part in frame_parts(big, 0)) * 1000)
        frames = frames_of("a", 10)
        are_answers(ask(served.path, frames), frames)


def test_one_connection_too_many_is_told_at_once_when_to_come_again(
    model: GatedModel, threads: ThreadPoolExecutor
) -> None:
    with serving(model, queue=2) as served:
        asked = [threads.submit(ask, served.path, frames_of(name, 3)) for name in "ab"]
        served.until_waiting(6)
        with ModelConnection(served.path) as third:
            for _ in range(2):
                with pytest.raises(BusyError, match="ask again in 1 s") as caught:
                    third.predict([frame("c")])
                assert caught.value.retry_after_s == 1
        model.gate.set()
        for request in asked:
            assert len(request.result(20)) == 3
        served.until_connected(0)
        assert len(ask(served.path, [frame("c")])) == 1
    assert model.asked.count("c") == 1


def test_frames_of_a_client_who_has_gone_are_dropped(model: GatedModel, threads: ThreadPoolExecutor) -> None:
    is_abandoned = threading.Event()

    def asking_while_waited_for() -> list[LabelMap | MadError]:
        with ModelConnection(served.path) as connection:
            try:
                return connection.predict(frames_of("given up", 3), is_abandoned.is_set)
            finally:
                with pytest.raises(ModelGoneError):
                    connection.predict([frame("after that")])

    with serving(model) as served:
        first = threads.submit(ask, served.path, [frame("first")])
        until(lambda: bool(model.batches))
        given_up = threads.submit(asking_while_waited_for)
        with socket.socket(socket.AF_UNIX) as killed:
            killed.connect(str(served.path))
            for following in (99, 98):
                killed.sendall(b"".join(bytes(p) for p in frame_parts(frame("killed"), following)))
            served.until_waiting(1 + 3 + 2)
        served.until_waiting(1 + 3)
        is_abandoned.set()
        with pytest.raises(AbandonedError):
            given_up.result(20)
        served.until_waiting(1)
        model.gate.set()
        assert len(first.result(20)) == 1
        served.until_connected(0)
    assert model.asked == ["first"]


def test_nobody_is_asked_for_whom_nobody_waits(model: GatedModel) -> None:
    with serving(model) as served, ModelConnection(served.path) as connection:
        with pytest.raises(AbandonedError):
            connection.predict([frame("a")], lambda: True)
        served.until_connected(0)
    assert model.batches == []


def test_a_frame_that_fails_costs_no_other_its_answer(
    model: GatedModel, caplog: pytest.LogCaptureFixture
) -> None:
    model.gate.set()
    frames = [*frames_of("a", 3), frame("bad/1"), frame("none/1"), *frames_of("b", 3)]
    with serving(model, batch_size=8) as served:
        answers = ask(served.path, frames)
    are_answers(answers[:3] + answers[5:], frames[:3] + frames[5:])
    assert isinstance(answers[3], ModelError)
    assert str(answers[3]) == 'model "gated" failed on image "bad/1": cannot see bad/1'
    assert isinstance(answers[4], ModelError)
    assert str(answers[4]) == 'model "gated" has no answer for image "none/1"'
    assert caplog.text.count('failed on image "bad/1"') == 1


def test_where_memory_runs_out_smaller_batches_are_tried() -> None:
    model = GatedModel(fits=2)
    model.gate.set()
    frames = frames_of("a", 8)
    with serving(model, batch_size=8) as served:
        are_answers(ask(served.path, frames), frames)
    assert [len(batch) for batch in model.batches] == [8, 4, 2, 2, 4, 2, 2]


def test_frames_that_cannot_be_sent_are_refused_alone(model: GatedModel) -> None:
    model.gate.set()
    good = frame("a", 7)
    frames = [
        good,
        frame("wide", 0, (1, 33)),
        Frame("grey", np.zeros((3, 5), np.uint8), (3, 5)),
        Frame("float", np.zeros((3, 5, 3), np.float32), (3, 5)),  # type: ignore[arg-type]
        Frame("long", good.rgb, (3, 5), "x" * 70_000),
        good,
    ]
    with serving(model) as served:
        answers = ask(served.path, frames)
    are_answers([answers[0], answers[5]], [good, good])
    assert [str(a) for a in answers[1:5]] == [
        'image "wide": it has 33 x 1 pixels; the model takes 32 x 32 at most',
        'image "grey": wanted (h, w, 3) uint8 pixels, got (3, 5) uint8',
        'image "float": wanted (h, w, 3) uint8 pixels, got (3, 5, 3) float32',
        'image "long": its id or address has more than 65536 bytes',
    ]
