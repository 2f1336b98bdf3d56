"""Published sets: small ones in their real formats, and the real ones where they are."""

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from consistency_lab.data import formats, published
from consistency_lab.data.catalogue import FASHION_MNIST, MNIST
from consistency_lab.data.sources import load_images
from consistency_lab.errors import UserError

RANDOM = np.random.default_rng(0)


@pytest.fixture
def small_mnist(real: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Unpacked files of a small MNIST, whose checksums the catalogue then holds."""
    contents = {}
    for prefix, count in (("train", 12), ("t10k", 5)):
        contents[f"{prefix}-images-idx3-ubyte"] = real.idx(RANDOM.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        contents[f"{prefix}-labels-idx1-ubyte"] = real.idx(np.arange(count, dtype=np.uint8) % 10)
    sums = {name: real.sha256(each) for name, each in contents.items()}
    monkeypatch.setattr(published, "MNIST", replace(MNIST, files=sums))
    return contents


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_mnist_from_a_folder(small_mnist: dict[str, bytes], tmp_path: Path, folder: str, packed: bool) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for name, content in small_mnist.items():
        file = tmp_path / folder / (f"{name}.gz" if packed else name)
        file.write_bytes(gzip.compress(content, compresslevel=1) if packed else content)
    train = load_images("mnist", data_dir=tmp_path, download=False)
    test = load_images("mnist(split='test', size=14)", data_dir=str(tmp_path), download=False)
    assert (len(train), train.shape, train.classes, train.name) == (12, (1, 28, 28), 10, "mnist/train")
    assert (len(test), test.shape, test.name) == (5, (1, 14, 14), "mnist/test/14px")
    assert train.pixels.dtype == test.pixels.dtype == torch.uint8
    assert train.pixels.numpy().tobytes() == small_mnist["train-images-idx3-ubyte"][16:]
    assert train.labels is not None
    assert train.labels.tolist() == [i % 10 for i in range(12)]


def test_missing_and_spoilt_files_of_mnist_are_named(small_mnist: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is not in .*mnist; put it there"):
        load_images("mnist", data_dir=tmp_path, download=False)
    for name, content in small_mnist.items():
        (tmp_path / name).write_bytes(content)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x09")
    with pytest.raises(UserError, match="t10k-labels-idx1-ubyte is damaged or is not the published file"):
        load_images("mnist(split='test')", data_dir=tmp_path, download=False)
    with pytest.raises(UserError, match=r"unknown split of mnist 'tset'.*Did you mean 'test'"):
        load_images("mnist(split='tset')", data_dir=tmp_path)


def test_mnist_is_downloaded_when_it_is_not_there(
    small_mnist: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fetch(remote: published.Remote, folder: Path) -> Path:
        asked.append((remote.name, remote.known, folder))
        folder.mkdir(exist_ok=True)
        (folder / remote.name).write_bytes(gzip.compress(small_mnist[remote.name.removesuffix(".gz")], mtime=0))
        return folder / remote.name

    monkeypatch.setattr(published, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert len(load_images("mnist", split="test")) == 5
    assert [name for name, _, _ in asked] == ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    assert all(folder == Path("data/mnist") for _, _, folder in asked)
    assert asked[0][1] == "md5:9fb629c4189551a2d022fa330f9573f3", "what MNIST's authors published"
    load_images("mnist", split="test")
    assert len(asked) == 2


@pytest.fixture
def small_cifar(
    real: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, bool], dict[str, np.ndarray]]:
    """Write a small CIFAR-10 and CIFAR-100, extracted or packed, and put their checksums where torchvision has them."""

    def write(root: Path, packed: bool) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for cifar in (CIFAR10, CIFAR100):
            contents = {}
            for batch, _ in (*cifar.train_list, *cifar.test_list):
                arrays[batch] = RANDOM.integers(0, 256, (4, 3072), dtype=np.uint8)
                entry = {"data": arrays[batch], "filenames": ["a.png"] * 4}
                if cifar is CIFAR10:
                    entry |= {"labels": [3, 1, 9, 0]}
                else:
                    entry |= {"fine_labels": [99, 0, 5, 7], "coarse_labels": [19, 0, 1, 2]}
                contents[batch] = real.pickle(entry)
            names = {"label_names": [f"class{i}" for i in range(10)]}
            if cifar is CIFAR100:
                names = {
                    f"{level}_label_names": [f"{level}{i}" for i in range(n)]
                    for level, n in (("fine", 100), ("coarse", 20))
                }
            contents[cifar.meta["filename"]] = real.pickle(names)
            archive = save(root, cifar.base_folder, contents, packed)
            md5 = {batch: real.md5(content) for batch, content in contents.items()}
            for batches in ("train_list", "test_list"):
                monkeypatch.setattr(cifar, batches, [[name, md5[name]] for name, _ in getattr(cifar, batches)])
            monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": md5[cifar.meta["filename"]]})
            monkeypatch.setattr(cifar, "tgz_md5", real.md5(archive))
            if packed:
                (root / cifar.filename).write_bytes(archive)
        return arrays

    def save(root: Path, folder: str, contents: dict[str, bytes], packed: bool) -> bytes:
        packed_bytes = io.BytesIO()
        with tarfile.open(fileobj=packed_bytes, mode="w:gz") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(f"{folder}/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
                if not packed:
                    (root / folder).mkdir(exist_ok=True)
                    (root / folder / name).write_bytes(content)
        return packed_bytes.getvalue()

    return write


@pytest.mark.parametrize("packed", [True, False])
def test_cifar_from_archive_and_folder(small_cifar: Callable, tmp_path: Path, packed: bool) -> None:
    arrays = small_cifar(tmp_path, packed)
    train = load_images("cifar10", data_dir=tmp_path, download=False)
    assert (len(train), train.shape, train.classes, train.name) == (20, (3, 32, 32), 10, "cifar10/train")
    assert train.pixels.dtype == torch.uint8
    assert train.class_names[3] == "class3"
    assert train.labels is not None
    assert train.labels[:4].tolist() == [3, 1, 9, 0]
    with pytest.raises(UserError, match="unknown split of cifar10 'valid'"):
        load_images("cifar10(split='valid')", data_dir=tmp_path)
    red = arrays["data_batch_2"][1, :1024].reshape(32, 32)
    assert np.array_equal(train.pixels[5, 0].numpy(), red)
    fine, coarse = (load_images("cifar100(split='test')", data_dir=tmp_path, coarse=coarse) for coarse in (False, True))
    assert (fine.classes, coarse.classes) == (100, 20)
    assert coarse.class_names[19] == "coarse19"
    assert np.array_equal(fine.pixels.flatten(1).numpy(), arrays["test"])
    small = load_images("cifar10(split='test', size=8, grey=True)", data_dir=tmp_path)
    assert (small.shape, small.name) == ((1, 8, 8), "cifar10/test/8px/grey")


@pytest.mark.parametrize("packed", [True, False])
def test_spoilt_cifar_is_named_and_never_unpickled(
    small_cifar: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    small_cifar(tmp_path, packed)
    file = tmp_path / (CIFAR10.filename if packed else f"{CIFAR10.base_folder}/data_batch_3")
    opened: list[bytes] = []
    unpickler = formats._ArraysOnly

    def watched(content: io.BytesIO, encoding: str) -> object:
        opened.append(content.getvalue())
        return unpickler(content, encoding=encoding)

    monkeypatch.setattr(formats, "_ArraysOnly", watched)
    for spoilt in (file.read_bytes()[:-5], file.read_bytes()[:-5] + b"other"):
        file.write_bytes(spoilt)
        with pytest.raises(UserError, match=f"{file.name} is damaged or is not the published file"):
            load_images("cifar10", data_dir=tmp_path, download=False)
        assert spoilt not in opened
        assert not (packed and opened), "nothing in a spoilt archive is opened"
    file.unlink()
    with pytest.raises(UserError, match=file.name):
        load_images("cifar10", data_dir=tmp_path, download=False)


def test_celeba(tmp_path: Path, write_pictures: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match=r"no img_align_celeba\.zip in .*celeba; fetch it"):
        load_images("celeba", data_dir=tmp_path)
    files = [f"{i:06}.jpg" for i in range(1, 5)]
    write_pictures(*files, folder="celeba/img_align_celeba", height=218, width=178)
    everyone = load_images("celeba(split='all')", data_dir=tmp_path)
    assert (len(everyone), everyone.shape, everyone.classes) == (4, (3, 64, 64), 0)
    with pytest.raises(UserError, match=r"list_eval_partition\.txt says which faces are the train split"):
        load_images("celeba", data_dir=tmp_path)
    lines = "".join(f"{file} {number}\n" for file, number in zip(files, (0, 1, 2, 0), strict=True))
    (tmp_path / "celeba" / "list_eval_partition.txt").write_text(lines)
    train = load_images("celeba", data_dir=tmp_path)
    assert torch.equal(train.pixels, everyone.pixels[[0, 3]])
    assert train.name == "celeba/train/crop140/64px"
    faces = load_images("celeba(split='valid', crop=None, size=None)", data_dir=tmp_path / "celeba")
    assert (len(faces), faces.shape) == (1, (3, 218, 178))
    with pytest.raises(UserError, match="unknown split of celeba"):
        load_images("celeba(split='dev')", data_dir=tmp_path)


def test_a_celeba_that_lacks_faces_is_refused_or_said(
    tmp_path: Path, write_pictures: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    files = [f"{i:06}.jpg" for i in range(1, 5)]
    folder = write_pictures(*files, folder="img_align_celeba", height=218, width=178)
    load_images("celeba(split='all')", data_dir=tmp_path)
    assert caplog.messages == [f"{folder} holds 4 of CelebA's 202599 faces."]
    partition = tmp_path / "list_eval_partition.txt"
    lines = [f"{file} {number}" for file, number in zip(files, (0, 1, 2, 0), strict=True)]
    partition.write_text("\n".join(lines))
    caplog.clear()
    assert len(load_images("celeba(split='test')", data_dir=tmp_path)) == 1
    assert caplog.messages == [f"{partition} lists 4 of CelebA's 202599 faces."]
    (folder / files[3]).unlink()
    for split, count in (("train", 2), ("all", 4)):
        with pytest.raises(
            UserError, match=rf"img_align_celeba lacks 1 of the {count} images asked for \(first 000004\.jpg\)"
        ):
            load_images("celeba", data_dir=tmp_path, split=split)
    partition.write_text("\n".join(lines)[:-2])
    with pytest.raises(
        UserError,
        match=r"line 4 of .*list_eval_partition\.txt is not a file and 0, 1 or 2 but '000004\.jpg'",
    ):
        load_images("celeba", data_dir=tmp_path)
    partition.write_text("")
    with pytest.raises(UserError, match=r"list_eval_partition\.txt is empty"):
        load_images("celeba", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_mnists(assets: Path, name: str) -> None:
    train, test = (load_images(name, data_dir=assets, download=False, split=split) for split in ("train", "test"))
    assert (len(train), len(test), train.shape, train.classes) == (60_000, 10_000, (1, 28, 28), 10)
    assert test.labels is not None
    assert torch.bincount(test.labels).sum() == 10_000
    mean = train.pixels[::60].float().mean() / 255
    assert abs(float(mean) - {"mnist": 0.1307, "fashion-mnist": 0.2860}[name]) < 0.01
    assert (train.class_names == FASHION_MNIST.class_names) == (name == "fashion-mnist")


def test_the_real_cifar(assets: Path) -> None:
    images = load_images(assets / "cifar10" / "test.npz")
    assert (len(images), images.shape, images.classes) == (10_000, (3, 32, 32), 10)
    assert images.pixels.dtype == torch.uint8
    channels = images.pixels.float().mean(dim=(0, 2, 3)) / 255
    assert torch.allclose(channels, torch.tensor([0.494, 0.485, 0.450]), atol=0.01)
