"""The published sets in MNIST's format: their files, checksums and mirrors. Data, no behaviour.

Sums of packed files are those that torchvision knows. Those of unpacked files stand here: they hold whoever packed them, and
tell MNIST from Fashion-MNIST, whose files have the same names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from consistency_lab.data.download import Remote


@dataclass(frozen=True)
class IdxSet:
    """A set in MNIST's format.

    Args:
        name: its name here.
        torchvision: its class in ``torchvision.datasets``.
        folders: where its files may lie below the data folder, the first being where a download goes.
        mirrors: addresses to which ``<file>.gz`` is appended.
        files: name of the unpacked file -> its SHA-256.
        class_names: of the labels; numbers if empty.
    """

    name: str
    torchvision: str
    folders: tuple[str, ...]
    mirrors: tuple[str, ...]
    files: Mapping[str, str]
    class_names: tuple[str, ...] = ()

    def remote(self, file: str) -> Remote:
        """Where ``<file>.gz`` is published."""
        from torchvision import datasets

        packed = f"{file}.gz"
        md5 = dict(getattr(datasets, self.torchvision).resources)[packed]
        return Remote(packed, f"md5:{md5}", tuple(f"{mirror}{packed}" for mirror in self.mirrors))


MNIST = IdxSet(
    "mnist",
    "MNIST",
    ("mnist", "MNIST/raw", ""),
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)

FASHION_MNIST = IdxSet(
    "fashion-mnist",
    "FashionMNIST",
    ("fashion-mnist", "FashionMNIST/raw", ""),
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
