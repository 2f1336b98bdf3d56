import pytest

from consistency_lab.markup import percent


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "0 %"),
        (0.00003, "under 0.01 %"),
        (0.0005, "0.05 %"),
        (0.003, "0.3 %"),
        (0.05, "5 %"),
        (0.0512, "5.1 %"),
        (0.0996, "10 %"),
        (0.238, "24 %"),
        (0.994, "99 %"),
        (0.9999, "over 99 %"),
        (1.0, "100 %"),
    ],
)
def test_shares_are_written_as_a_person_would(share, words):
    assert percent(share) == words
