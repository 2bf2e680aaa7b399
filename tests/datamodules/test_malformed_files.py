"""Files that are empty, cut off, junk or something else: one line says so, and no code in them is run."""

import gzip
import io
import os
import pickle
import random
import tarfile
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from datamodules import ImageFolderData, Split, Tabular, TensorDataModule, TorchvisionSet
from nfa.errors import NfaError
from tests.set_files import MAKERS, switch_off_checksums


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def load(data):
    data.prepare_data()
    data.setup()
    return data


def outcome(make):
    """The line that is said of malformed data; None where they turn out to be usable."""
    said = None
    try:
        data = load(make())
    except NfaError as error:
        said = str(error)
    if said is None:
        x, _ = next(iter(data.train_dataloader()))
        assert x.isfinite().all()
    else:
        assert "\n" not in said
        assert 10 < len(said) < 1000
    return said


# ---- tables -----------------------------------------------------------------------------------------------

GOOD = "age,colour,price\n" + "".join(f"{i},{'red' if i % 3 else 'blue'},{i * i}.5\n" for i in range(40))
ROWS = GOOD.encode()
TABLES = {
    "empty": b"",
    "blank": b"\n \n\n",
    "header alone": b"age,colour,price\n",
    "one row": b"age,price\n1,2\n",
    "two rows": b"age,price\n1,2\n2,3\n",
    "separators": b",,,\n,,,\n",
    "zeros": b"\0" * 1000,
    "NUL in a cell": ROWS.replace(b"red", b"r\0d", 1),
    "random bytes": bytes(random.Random(0).randbytes(3000)),
    "UTF-16": GOOD.encode("utf-16"),
    "UTF-32": GOOD.encode("utf-32"),
    "Latin-1": GOOD.replace("red", "gr\u00fcn").encode("latin-1"),
    "gzip": gzip.compress(ROWS),
    "pickle": pickle.dumps({"a": 1}),
    "image": b"\x89PNG\r\n\x1a\n" + bytes(200),
    "parquet": b"PAR1" + bytes(100) + b"PAR1",
    "zip": b"PK\x03\x04" + bytes(100),
    "JSON": b'{"age": [1, 2], "price": [3, 4]}',
    "HTML": b"<html><body>404 Not Found</body></html>\n",
    "one column": b"price\n" + b"".join(b"%d\n" % i for i in range(40)),
    "names twice": ROWS.replace(b"age,", b"price,", 1),
    "no name": ROWS.replace(b"age,", b",", 1).replace(b"colour", b"", 1),
    "no header": ROWS.partition(b"\n")[2],
    "target missing": ROWS.replace(b"price", b"cost"),
    "target empty": b"age,price\n" + b"".join(b"%d,\n" % i for i in range(40)),
    "target constant": b"age,price\n" + b"".join(b"%d,7\n" % i for i in range(40)),
    "target infinite": ROWS.replace(b"1.5\n", b"inf\n", 1),
    "target vast": b"age,price\n"
    + b"".join(b"%d,%s%de306\n" % (i, b"-" * (i % 2), i + 100) for i in range(40)),
    "input vast": b"age,price\n"
    + b"".join(b"%s%de306,%d.5\n" % (b"-" * (i % 2), i + 100, i) for i in range(40)),
    "target nan": ROWS.replace(b".5\n", b"nan\n"),
    "targets all different": b"age,price\n" + b"".join(b"%d,x%d\n" % (i, i) for i in range(40)),
    "ragged": ROWS + b"1,2\n",
    "quote never closed": ROWS.replace(b"red", b'"red', 1),
    "huge field": ROWS.replace(b"red", b"r" * 200_000, 1),
    "huge row": b",".join(b"c%d" % i for i in range(20_000)) + b"\n1,2\n",
    "number too long": ROWS.replace(b"1.5", b"9" * 5000),
    "stray text": ROWS.replace(b"7,red", b"seven,red"),
    "carriage returns": ROWS.replace(b"\n", b"\r"),
    "terminal escapes": ROWS.replace(b"age", b"\x1b[2Jage"),
    "empty columns": ROWS.replace(b"red", b"").replace(b"blue", b""),
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables(tmp_path, kind):
    path = tmp_path / "t.csv"
    path.write_bytes(TABLES[kind])
    usable = {"carriage returns", "terminal escapes", "empty columns", "no name"}
    said = outcome(lambda: Tabular(str(path), "price"))
    assert kind in usable or said is not None


def damaged(content, rng):
    """Bytes with a few of them changed, taken out, put in, repeated, or cut off."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, n = rng.randrange(len(content) + 1), rng.randint(1, 30)
        kind = rng.randrange(5)
        if kind == 0:
            content[at : at + n] = rng.randbytes(n)
        elif kind == 1:
            del content[at : at + n]
        elif kind == 2:
            content[at:at] = rng.choice(
                [b"\0", b'"', b",", b"\n", b"\xff\xfe", b"inf", b"nan", b"-", b"e9", b"\x1b"]
            )
        elif kind == 3:
            content[at:at] = content[at : at + 40]
        else:
            del content[max(at, 1) :]
    return bytes(content)


@pytest.mark.parametrize("seed", range(120))
def test_damaged_tables(tmp_path, seed):
    path = tmp_path / "t.csv"
    path.write_bytes(damaged(ROWS, random.Random(seed)))
    outcome(lambda: Tabular(str(path), "price", val_fraction=0.1))


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".tsv", ".xlsx", ""])
def test_what_is_no_file(tmp_path, ending):
    (tmp_path / f"folder{ending}").mkdir()
    (tmp_path / f"loop{ending}").symlink_to(tmp_path / f"loop{ending}")
    for name in ("folder", "loop", "nothing", "x" * 100):
        assert "expected" in outcome(lambda name=name: Tabular(str(tmp_path / f"{name}{ending}"), "price"))


@pytest.mark.parametrize("seed", range(12))
def test_damaged_california_housing(tmp_path, seed):
    buffer = io.BytesIO()
    rows = b"\n".join(b",".join(b"%d" % (i * j + 1) for j in range(9)) for i in range(60))
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        entry = tarfile.TarInfo("CaliforniaHousing/cal_housing.data")
        entry.size = len(rows)
        archive.addfile(entry, io.BytesIO(rows))
    (tmp_path / "cal_housing.tgz").write_bytes(damaged(buffer.getvalue(), random.Random(seed)))
    outcome(lambda: Tabular(name="california_housing", root=tmp_path, download=False))


def test_a_folder_in_the_archive_of_california_housing(tmp_path):
    with tarfile.open(tmp_path / "cal_housing.tgz", "w:gz") as archive:
        entry = tarfile.TarInfo("CaliforniaHousing/cal_housing.data")
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    data = Tabular(name="california_housing", root=tmp_path, download=False)
    assert "missing or damaged" in outcome(lambda: data)


# ---- images -----------------------------------------------------------------------------------------------


def encoded(kind):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "tiff", "webp", "ppm"])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow's, on what it reads nevertheless
def test_damaged_images(tmp_path, kind, seed):
    good = encoded(kind)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.{kind}").write_bytes(good)
    (tmp_path / "cat" / f"0.{kind}").write_bytes(damaged(good, random.Random(seed)))
    outcome(lambda: ImageFolderData(tmp_path, size=8, val_fraction=0))


def test_pipes_and_folders_among_images_are_passed_over(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.png").write_bytes(encoded("png"))
    os.mkfifo(tmp_path / "cat" / "pipe.png")  # opening it would wait for ever
    (tmp_path / "dog" / "folder.png").mkdir()
    (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert outcome(lambda: ImageFolderData(tmp_path, val_fraction=0)) is None


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "photos").touch()
    assert "expected a folder of images" in outcome(lambda: ImageFolderData(tmp_path / "photos"))


# ---- sets of torchvision ----------------------------------------------------------------------------------


class Marks:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
@pytest.mark.parametrize("download", [True, False])
def test_pickles_that_are_not_the_published_ones_are_never_loaded(tmp_path, name, download):
    MAKERS[name](tmp_path)
    for path in tmp_path.glob("*/*"):
        path.write_bytes(pickle.dumps(Marks(tmp_path / "run")))
    assert f"{name} is missing or damaged" in outcome(
        lambda: TorchvisionSet(name, tmp_path, download=download)
    )
    assert not (tmp_path / "run").exists()


def test_older_files_of_mnist_run_no_code(tmp_path):
    folder = tmp_path / "MNIST" / "processed"  # torchvision reads them in place of raw/
    folder.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        (folder / name).write_bytes(pickle.dumps(Marks(tmp_path / "run")))
    assert "MNIST is missing or damaged" in outcome(lambda: TorchvisionSet("MNIST", tmp_path, download=False))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_damaged_sets(tmp_path, monkeypatch, name, seed):
    """Checksums are switched off, so that readers see the damage; of pickles they alone keep it away."""
    MAKERS[name](tmp_path)
    if "CIFAR" not in name:
        switch_off_checksums(monkeypatch)
    rng = random.Random(seed)
    paths = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size)
    for path in rng.sample(paths, min(len(paths), 3)):
        content = path.read_bytes()
        path.write_bytes(damaged(content[:2000], rng) + content[2000:])
    outcome(lambda: TorchvisionSet(name, tmp_path, download=False, size=8, val_fraction=0))


@pytest.mark.parametrize("name", MAKERS)
def test_a_root_that_is_no_folder(tmp_path, name):
    (tmp_path / "root").touch()
    for download in (True, False):
        assert outcome(lambda d=download: TorchvisionSet(name, tmp_path / "root", download=d)) is not None


# ---- data of one's own ------------------------------------------------------------------------------------

TENSORS = {
    "nothing": lambda torch: None,
    "one split": lambda torch: Split(torch.rand(9, 2), torch.arange(9) % 2),
    "tensors": lambda torch: (torch.rand(9, 2), torch.arange(9) % 2),
    "three": lambda torch: (Split(torch.rand(9, 2), torch.arange(9) % 2),) * 3,
    "numbers": lambda torch: (Split(torch.tensor(1.0), torch.tensor(1)),) * 2,
    "vectors": lambda torch: (Split(torch.rand(9), torch.arange(9) % 2),) * 2,
    "no features": lambda torch: (Split(torch.rand(9, 0), torch.arange(9) % 2),) * 2,
    "lists": lambda torch: (Split([1.0], [1]),) * 2,
    "whole numbers": lambda torch: (Split(torch.arange(9), torch.arange(9)),) * 2,
    "other width": lambda torch: (
        Split(torch.rand(9, 2), torch.arange(9) % 2), Split(torch.rand(9, 3), torch.arange(9) % 2)
    ),
    "other kind": lambda torch: (
        Split(torch.rand(9, 2), torch.arange(9) % 2), Split(torch.rand(9, 2), torch.rand(9, 1))
    ),
    "bytes and numbers": lambda torch: (
        Split(torch.zeros(9, 1, 4, 4, dtype=torch.uint8), torch.arange(9) % 2),
        Split(torch.rand(9, 1, 4, 4), torch.arange(9) % 2),
    ),
    "negative classes": lambda torch: (Split(torch.rand(9, 2), torch.arange(9) - 1),) * 2,
    "nan targets": lambda torch: (Split(torch.rand(9, 2), torch.full((9, 1), torch.nan)),) * 2,
}  # fmt: skip


@pytest.mark.parametrize("kind", TENSORS)
def test_data_of_ones_own(kind):
    import torch

    class Own(TensorDataModule):
        def load(self):
            return TENSORS[kind](torch)

    assert outcome(Own) is not None
