"""The board of long work, and how other processes post to it."""

import json

import pytest

from consistency_lab import progress
from consistency_lab.data.sources import load_images
from consistency_lab.progress import (
    DONE,
    TRAINING,
    WAITING,
    Board,
    Job,
    Throttled,
    current_board,
    duration,
    file_post,
    posted_in,
    posting_to,
    told,
)
from consistency_lab.training.train import train


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(progress.time, "time", lambda: self.now)
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_time_left_is_the_rest_at_the_pace_so_far(clock):
    board = Board()
    board.plan("a", 100)
    assert board.jobs == [Job("a", WAITING, 0, 100)]
    assert board.jobs[0].seconds_left(clock.now) is None
    board.tell("a", 20, 100, None)  # a run that goes on from its checkpoint
    assert board.jobs[0].seconds_left(clock.now) is None
    clock.now += 10
    board.tell("a", 25, 100, 0.5)
    assert board.jobs[0].seconds_left(clock.now) == pytest.approx(75 * 10 / 5)
    assert board.jobs[0].seconds_left(clock.now + 30) == pytest.approx(120)
    assert board.jobs[0].seconds_left(clock.now + 1e6) == 0
    clock.now += 1
    board.tell("a", 100, 100, 0.25)
    (job,) = board.jobs
    assert (job.state, job.loss, job.seconds_left(clock.now)) == (DONE, 0.25, None)


def test_a_lost_worker_is_forgotten_with_its_pace_and_its_late_words(clock):
    board = Board()
    board.tell("a", 50, 100, 0.5)
    late = {"a": (60, 100, 0.4, clock.now + 1)}
    clock.now += 2
    board.lost("a")
    board._take(late)
    assert board.jobs[0].state == WAITING
    clock.now += 5
    board.tell("a", 25, 100, 0.6)
    clock.now += 5
    board.tell("a", 50, 100, 0.5)
    assert board.jobs[0].seconds_left(clock.now) == pytest.approx(10)


def test_words_of_an_older_step_do_not_replace_later_ones(clock):
    board = Board()
    board._take({"a": (50, 100, 0.5, 1010.0)})
    board._take({"a": (25, 100, 0.9, 1005.0)})
    assert (board.jobs[0].step, board.jobs[0].loss) == (50, 0.5)


def test_a_job_that_is_done_has_no_loss_of_an_earlier_step():
    board = Board()
    board.tell("a", 50, 100, 0.5)
    board.end("a")
    board.tell("b", 50, 100, 0.5)
    board.end("b", "diverged at step 60")
    assert [(job.state, job.step, job.loss) for job in board.jobs] == [
        (DONE, 100, None),
        ("diverged at step 60", 50, 0.5),
    ]


def test_what_is_left_when_the_work_ends_or_is_stopped():
    for stopped, states in ((None, ["not needed", DONE, DONE]), ("no space", ["not begun", "stopped", DONE])):
        board = Board()
        board.plan("a", 10)
        board.tell("b", 5, 10, None)
        board.plan("c", 10, done=True)
        board.close(stopped)
        assert [job.state for job in board.jobs] == states
        assert board.stopped == stopped


def test_a_process_writes_seldom_and_the_last_of_a_job_at_once(clock, tmp_path):
    sent = []
    post = Throttled(sent.append)
    for step in range(0, 101, 10):
        post.tell("a", step, 100, 1 / (step + 1))
        clock.now += 0.3
    assert [each["a"][0] for each in sent] == [0, 70, 100]
    file = file_post(tmp_path / "0.json")
    file.tell("a", 5, 10, 0.5)
    (tmp_path / "1.json").write_text(json.dumps({"a": [3, 10, 0.9, 1.0], "b": [1, 10, None, 2.0]}))
    (tmp_path / "2.json").write_text("{torn")
    assert {name: each[0] for name, each in posted_in(tmp_path).items()} == {"a": 5, "b": 1}
    assert not list(tmp_path.glob("*.tmp"))


def test_a_listener_that_fails_is_no_reason_to_stop():
    def fails(_):
        raise OSError("no space")

    Throttled(fails).tell("a", 1, 2, 0.5)


def test_a_board_reads_its_readers_as_long_as_they_are_there():
    board, words = Board(), {"a": (1, 10, 0.5, 5.0)}
    with board.listening(lambda: words):
        words = {"a": (2, 10, 0.4, 6.0)}
    words = {"a": (3, 10, 0.3, 7.0)}
    board.collect()
    assert board.jobs[0].step == 2


def test_training_says_where_it_is_and_gives_the_same_bits():
    images, settings = load_images("digits"), {"network": "mlp(width=8, depth=1)", "steps": 60, "batch": 16}
    plain, board, words = train(images, device="cpu", **settings), Board(), []
    with posting_to(board):
        assert current_board() is board
        watched = train(images, device="cpu", name="mine", **settings)
    (job,) = board.jobs
    assert (job.name, job.state, job.step, job.steps) == ("mine", DONE, 60, 60)
    assert job.loss > 0
    for one, two in zip(plain.denoiser.state_dict().values(), watched.denoiser.state_dict().values(), strict=True):
        assert one.equal(two)
    board.tell = lambda *word: words.append(word)
    with posting_to(board):
        train(images, device="cpu", name="mine", **settings)
    assert [word[1] for word in words] == [0, 25, 50, 60]
    assert current_board() is None
    told("nobody", 1, 2)  # and nothing happens
    assert TRAINING == "training"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (11100, "3 h 05 min"), (187200, "2 d 4 h")],
)
def test_durations_are_said_as_a_person_would(seconds, text):
    assert duration(seconds) == text
