"""Long work as it is shown: in a terminal, elsewhere, and on a page."""

import io
import re
import threading
from html.parser import HTMLParser

import pytest

from consistency_lab.cli import live as module
from consistency_lab.cli.live import _Lines, _Table, live, table_lines
from consistency_lab.progress import Board, current_board, told
from consistency_lab.reports.progress import progress_page


def board():
    made = Board()
    made.plan("waits", 100)
    made.plan("ready", 100, done=True)
    made.tell("runs", 25, 100, 0.125)
    made._take({"runs": (50, 100, 0.0625, made.jobs[2].first[0] + 10)})
    return made


class Screen(io.StringIO):
    """What a terminal shows of what was written."""

    def lines(self):
        shown = []
        for part in re.split(r"(\x1b\[\d+F\x1b\[J)", self.getvalue()):
            if up := re.match(r"\x1b\[(\d+)F", part):
                shown = shown[: len(shown) - int(up[1])]
            else:
                shown += part.splitlines()
        return shown


def test_a_table_has_what_trains_first_and_counts_what_does_not_fit():
    made = board()
    now = made.jobs[2].last[0]
    lines = table_lines(made, now, 100, 20)
    assert lines[0].startswith("1 waiting, 1 done, 1 training; running for")
    assert [re.split("  +", line) for line in lines[1:]] == [
        ["runs", "training", "50 of 100", "loss 0.0625", "20 s left"],
        ["waits", "waiting", "0 of 100"],
        ["ready", "done", "100 of 100"],
    ]
    short = table_lines(made, now, 100, 2)
    assert len(short) == 2
    assert short[0].endswith("; 2 of them not shown")
    assert all(len(line) <= 12 for line in table_lines(made, now, 12, 20))
    assert table_lines(Board(), now, 80, 20)[0].startswith("no job yet")


def test_a_terminal_shows_the_last_table_alone_and_what_was_said_above_it(monkeypatch):
    screen, made = Screen(), board()
    monkeypatch.setattr(module.sys, "stdout", screen)
    table = _Table(made, screen)
    table.show(False)
    table.say("trained ready")
    table.show(False)
    made._take({"runs": (100, 100, 0.03, made.jobs[2].last[0] + 1)})
    table.show(True)
    lines = screen.lines()
    assert lines[0] == "trained ready"
    assert len(lines) == 1 + 1 + 3
    assert [line for line in lines if re.split("  +", line) == ["runs", "done", "100 of 100", "loss 0.03"]]


def test_elsewhere_there_are_lines_and_standard_output_has_none_of_them(monkeypatch, capsys):
    monkeypatch.setattr(module, "_LINE", 0.0)
    lines = _Lines(board())
    lines.show(False)
    lines.show(True)
    lines.say("trained ready")
    out, err = capsys.readouterr()
    assert out == "trained ready\n"
    assert err.startswith("runs  training  50 of 100  loss 0.0625  ")
    assert err.count("\n") == 1


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def test_a_page_is_read_again_while_the_work_goes_on_and_no_longer():
    made = board()
    made.plan("<b>&", 10)
    made.note("what <i>now</i>")
    now = made.jobs[2].last[0]
    going = Page(progress_page(made, "Study <x>", now))
    refresh = [attrs for tag, attrs in going.tags if attrs.get("http-equiv") == "refresh"]
    assert [each["content"] for each in refresh] == ["5"]
    words = " ".join(going.text)
    for said in ("Study <x>", "50 of 100 (50 %)", "0.0625", "20 s", "<b>&", "what <i>now</i>", "Written at"):
        assert said in words
    assert not [attrs for _, attrs in going.tags if "src" in attrs or "href" in attrs]
    made.close("no space left")
    ended = Page(progress_page(made, "Study <x>"))
    assert not [attrs for _, attrs in ended.tags if attrs.get("http-equiv") == "refresh"]
    assert "The work was stopped at" in " ".join(ended.text)
    assert "no space left" in " ".join(ended.text)


def test_the_page_is_there_from_the_first_and_says_how_it_ended(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "_DRAW", 0.01)
    page, seen = tmp_path / "x-progress.html", threading.Event()
    write = module.write_progress

    def noted(*given):
        write(*given)
        seen.set()

    monkeypatch.setattr(module, "write_progress", noted)
    with live("Title", page) as say:
        told("a", 5, 10, 0.5)
        say("begun")
        assert seen.wait(30)
        assert 'http-equiv="refresh"' in page.read_text()
    assert "The work ended at" in page.read_text()
    assert [path.name for path in tmp_path.iterdir()] == [page.name]
    assert capsys.readouterr().out == "begun\n"
    assert current_board() is None
    with pytest.raises(KeyboardInterrupt), live("Title", page, quiet=True) as say:
        told("a", 5, 10, 0.5)
        say("begun")
        raise KeyboardInterrupt("stopped by hand")
    assert "stopped by hand" in page.read_text()
    assert capsys.readouterr() == ("", "")
    (tmp_path / "file").write_text("")
    with live("Title", tmp_path / "file" / "page.html"):  # where nothing can be written
        told("a", 10, 10, 0.5)
