import torch
from hypothesis import given
from hypothesis import strategies as st

from consistency_lab.data.imageset import ImageSet


def numbered(count, labelled, value=0):
    """Images that can be told apart: the first two bytes are their number."""
    number = torch.arange(count)
    pixels = torch.stack([number // 256, number % 256, torch.full_like(number, 255)], 1)[:, :, None, None].to(
        torch.uint8
    )
    pixels[:, 2] = 255 - value
    return ImageSet("numbered", pixels, number % 3 if labelled else None, ("a", "b", "c") if labelled else ())


def numbers(images):
    return (images.pixels[:, 0].int() * 256 + images.pixels[:, 1].int()).flatten().tolist()


@given(
    st.integers(1, 600),
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=5),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**63),
)
def test_a_split_is_disjoint_of_the_sizes_asked_for_and_the_same_again(count, shares, whole, labelled, seed):
    sizes = [max(1, int(share * count / sum(shares))) for share in shares[:count]]
    if sum(sizes) > count:
        sizes = [count]
    if whole:
        sizes[-1] += count - sum(sizes)
    parts = numbered(count, labelled).split(*sizes, seed=seed)
    found = [numbers(part) for part in parts]
    together = [number for part in found for number in part]
    assert [len(part) for part in parts] == sizes
    assert len(set(together)) == len(together)
    assert set(together) <= set(range(count))
    if whole:
        assert set(together) == set(range(count))
    if labelled:
        assert all(
            part.labels.tolist() == [number % 3 for number in each] for part, each in zip(parts, found, strict=True)
        )
    again = numbered(count, labelled, value=9).split(*sizes, seed=seed)
    assert [numbers(part) for part in again] == found  # whatever the images are


@given(st.integers(20, 300), st.integers(0, 2**62))
def test_a_part_does_not_depend_on_the_parts_behind_it_and_another_seed_gives_others(count, seed):
    images = numbered(count, False)
    first = numbers(images.split(10, seed=seed)[0])
    assert numbers(images.split(10, 5, 5, seed=seed)[0]) == first
    assert numbers(images.split(count, seed=seed)[0]) != numbers(images.split(count, seed=seed + 1)[0])


@given(st.lists(st.integers(0, 99), min_size=1, max_size=30))
def test_what_is_taken_is_what_stands_there_and_has_a_fingerprint_of_its_content(indices):
    images = numbered(100, True)
    part = images.take(indices, "part")
    assert numbers(part) == indices
    assert torch.equal(part.all(), images.batch(indices))
    assert part.fingerprint == images.take(torch.tensor(indices), "other name").fingerprint
    assert (part.fingerprint == images.take(indices[::-1], "part").fingerprint) == (indices == indices[::-1])
