"""Files of torchvision's sets in their real formats, small and made here."""

import os
import pickle
import struct

import numpy as np
from PIL import Image
from scipy.io import savemat

N = {"train": 40, "test": 20}


def pixels(split, *shape):
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (N[split], *shape), dtype=np.uint8)


def targets(split, num_classes=10):
    return np.arange(N[split], dtype=np.uint8) % num_classes


def make_mnist(root, name="MNIST"):
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        x, y = pixels(split, 28, 28), targets(split)
        header = struct.pack(">4i", 0x0803, *x.shape)
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + x.tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x0801, len(y)) + y.tobytes())
    return {split: pixels(split, 1, 28, 28) for split in N}


def make_cifar(root, folder, files, label_key, meta, names):
    (root / folder).mkdir(parents=True)

    def dump(name, content):
        (root / folder / name).write_bytes(pickle.dumps(content))

    for split, parts in files.items():
        x, y = pixels(split, 3, 32, 32).reshape(N[split], -1), targets(split).tolist()
        size = N[split] // len(parts)
        for i, part in enumerate(parts):
            cut = slice(i * size, (i + 1) * size)
            dump(part, {"data": x[cut], label_key: y[cut]})
    dump(meta, {names: [f"class {i}" for i in range(10)]})
    return {split: pixels(split, 3, 32, 32) for split in N}


def make_cifar10(root):
    files = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    return make_cifar(root, "cifar-10-batches-py", files, "labels", "batches.meta", "label_names")


def make_cifar100(root):
    files = {"train": ["train"], "test": ["test"]}
    return make_cifar(root, "cifar-100-python", files, "fine_labels", "meta", "fine_label_names")


def make_svhn(root):
    root.mkdir(exist_ok=True)
    for split in N:
        x, y = pixels(split, 3, 32, 32), targets(split)
        y = np.where(y == 0, 10, y)[:, None]  # SVHN calls the digit 0 class 10
        savemat(root / f"{split}_32x32.mat", {"X": x.transpose(2, 3, 1, 0), "y": y})
    return {split: pixels(split, 3, 32, 32) for split in N}


def make_stl10(root):
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for split in N:
        pixels(split, 3, 96, 96).transpose(0, 1, 3, 2).tofile(folder / f"{split}_X.bin")
        (targets(split) + 1).tofile(folder / f"{split}_y.bin")
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "class_names.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    return {split: pixels(split, 3, 96, 96) for split in N}


def make_gtsrb(root):
    base = root / "gtsrb"
    for split, folder in (("train", "Training"), ("test", "Final_Test/Images")):
        for i, (x, y) in enumerate(zip(pixels(split, 32, 32, 3), targets(split), strict=True)):
            sub = f"{y:05d}" if split == "train" else ""
            path = base / "GTSRB" / folder / sub / f"{i:05d}.ppm"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x).save(path)
    rows = [f"{i:05d}.ppm;32;32;0;0;0;0;{y}" for i, y in enumerate(targets("test"))]
    header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    (base / "GT-final_test.csv").write_text("\n".join([header, *rows]))
    order = np.argsort(targets("train"), kind="stable")  # torchvision lists them folder by folder
    return {
        "train": pixels("train", 32, 32, 3).transpose(0, 3, 1, 2)[order],
        "test": pixels("test", 32, 32, 3).transpose(0, 3, 1, 2),
    }


MAKERS = {
    "MNIST": make_mnist,
    "FashionMNIST": lambda root: make_mnist(root, "FashionMNIST"),
    "CIFAR10": make_cifar10,
    "CIFAR100": make_cifar100,
    "SVHN": make_svhn,
    "STL10": make_stl10,
    "GTSRB": make_gtsrb,
}


def switch_off_checksums(monkeypatch):
    for module in ("cifar", "svhn", "stl10", "utils"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity", lambda path, md5=None: os.path.isfile(path)
        )
