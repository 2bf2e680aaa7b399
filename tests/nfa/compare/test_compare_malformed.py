"""Malformed run folders: each is left out with its reason in one line, and makes no other number wrong."""

import csv
import io
import json
import os
import random
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from nfa.command.cli import main
from nfa.compare.together import write_summary
from tests.nfa.run_folders import PATCH, make_run

FILES = ("summary.json", "metrics.csv", "ansatz.csv", "features.safetensors")
WRONG = [
    None, True, -1, 0, 1e308, 10**400, -(10**30), "", "x", "nan", [], [1], [[]], {}, {"a": 1}, "\x1b[31m",
    "a\nb", "=cmd()", "../../x", "\ud800",
]  # fmt: skip
RAW = [
    b"", b"\0" * 64, b"{", b"[]", b"null", b"NaN", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 50_000,
    b"1" * 10_000, b"PK\x03\x04", b"epoch\n", b"epoch,epoch\n1,2\n", b",\n,\n", b"\r", b"epoch,layer\n1,a\n",
    b'"', b"a,b\n1\n",
    b"epoch,x\n1,2,3\n", b"epoch,step\nnan,1\n", b"epoch,step\ninf,1\n", b"epoch,step\n-1,1\n",
    b"epoch,step\n1e999,1\n", b"epoch,step\n1_0,1\n", "epoch,step\n٣,1\n".encode(),
    b"\xef\xbb\xbfepoch,step\n1,1\n",
    b"epoch,step\n" + b"1" * 200_000 + b",1\n", b"epoch,step\n1,0x10\n", b"epoch;step\n1;2\n",
]  # fmt: skip


KEYS = (
    "model", "data", "seed", "options", "settings", "run", "test/accuracy", "test_split", "fit_seconds",
    "epochs", "n_test", "kind", "num_parameters", "normalize", "files",
)  # fmt: skip
CELLS = ("", "x", "nan", "inf", "-5", "1e999", "9" * 400, "=1+1", "\x1b[2J")


def header(text, size=0):
    return struct.pack("<Q", len(text)) + text + b"\0" * size


SAFETENSORS = [
    header(b"{}"), header(b"[]"), header(b"x"), struct.pack("<Q", 2**60), header(b"[" * 10_000),
    header(b'{"nfm":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4000000000000]}}'),
    header(b'{"nfm":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}', 8),
    header(b'{"nfm":{"dtype":"F32","shape":[2,2],"data_offsets":[0,99]}}', 16),
    header(b'{"nfm":{"dtype":"F99","shape":[2,2],"data_offsets":[0,16]}}', 16),
    header(b'{"nfm":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,16]}}', 16),
    header(b'{"nfm":{"dtype":"F32","shape":[-2,2],"data_offsets":[0,16]}}', 16),
    header(b'{"nfm":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', 4),
    header(b'{"nfm":{"dtype":"I64","shape":[2,2],"data_offsets":[0,32]}}', 32),
    header(b'{"inputs":{"dtype":"F32","shape":[1,8192],"data_offsets":[0,32768]}}', 32768),
    header(b'{"__metadata__":{"input_shape":"99999999999x9"}}'),
    header(b'{"__metadata__":{"patch":"9x9x9x9x9"}}'), header(b'{"__metadata__":{"patch":1}}'),
]  # fmt: skip


def variants():
    """Name and function that damages a folder."""
    for name in FILES:
        for index, raw in enumerate(RAW):
            yield f"{name} raw {index}", lambda f, n=name, raw=raw: (f / n).write_bytes(raw)
        for kind in ("folder", "gone", "broken link", "loop", "pipe", "device", "link to a folder"):
            yield f"{name} {kind}", lambda f, n=name, k=kind: replace(f / n, k)
        for index in range(12):
            yield f"{name} cut {index}", lambda f, n=name, i=index: cut(f / n, i)
        for index in range(12):
            yield f"{name} flipped {index}", lambda f, n=name, i=index: flip(f / n, i)
    for key in KEYS:
        for index, value in enumerate(WRONG):
            yield f"{key} wrong {index}", lambda f, k=key, v=value: edit(f, k, v)
    for index, raw in enumerate(SAFETENSORS):
        yield f"safetensors {index}", lambda f, raw=raw: (f / FILES[3]).write_bytes(raw)
    for column in ("epoch", "layer", "status", "alignment", "in_features"):
        for name in ("metrics.csv", "ansatz.csv"):
            yield f"{name} without {column}", lambda f, n=name, c=column: drop(f / n, c)
            for index, value in enumerate(CELLS):
                yield f"{name} {column} {index}", lambda f, n=name, c=column, v=value: fill(f / n, c, v)


def replace(path, kind):
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "broken link":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "link to a folder":
        path.symlink_to(".")


def cut(path, seed):
    whole = path.read_bytes()
    path.write_bytes(whole[: random.Random(seed).randrange(len(whole))])


def flip(path, seed):
    draw, whole = random.Random(seed), bytearray(path.read_bytes())
    for _ in range(1 + seed % 4):
        whole[draw.randrange(len(whole))] = draw.randrange(256)
    path.write_bytes(whole)


def edit(folder, key, value):
    path = folder / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))


def drop(path, column):
    rows = [line.split(",") for line in path.read_text().splitlines()]
    keep = [i for i, name in enumerate(rows[0]) if name != column]
    path.write_text("".join(",".join(row[i] for i in keep) + "\n" for row in rows))


def fill(path, column, value):
    rows = [line.split(",") for line in path.read_text().splitlines()]
    for row in rows[1:]:
        for i, name in enumerate(rows[0]):
            if name == column:
                row[i] = value
    path.write_text("".join(",".join(row) + "\n" for row in rows))


VARIANTS = dict(variants())


def compared(folders, out, capsys):
    try:
        code = main(["compare", *map(str, folders), "--out", str(out)])
    except SystemExit as stop:
        return stop.code, capsys.readouterr()
    said = capsys.readouterr()
    return code, said, (out / "comparison.csv").read_text(), (out / "similarity.csv").read_text()


def lay_out(base, *, new):
    scores = {"mlp": 0.9, "rfm": 0.95, "cnn": 0.8}
    folders = [make_run(base / name, name, 0, score) for name, score in scores.items()]
    if new:
        for folder in folders:
            write_summary(folder, json.loads((folder / "summary.json").read_text()))
    return folders


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Three folders of version 0.1, and three with digests."""
    base = tmp_path_factory.mktemp("good")
    return {new: lay_out(base / str(new), new=new) for new in (False, True)}


def start(good, tmp_path, new):
    for folder in good[new]:
        shutil.copytree(folder, tmp_path / folder.name)
    return [tmp_path / folder.name for folder in good[new]]


def test_there_are_some_hundred():
    assert len(VARIANTS) >= 500


@pytest.mark.parametrize("new", [True, False], ids=["now", "v0.1"])
@pytest.mark.parametrize("part", range(8))
def test_a_malformed_folder_is_left_out_in_one_line(good, tmp_path, capsys, part, new):
    folders = start(good, tmp_path, new)
    _, _, table, _ = compared(folders, tmp_path / "all", capsys)
    _, _, *of_two = compared(folders[:2], tmp_path / "two", capsys)
    for name in list(VARIANTS)[part::8]:
        shutil.rmtree(folders[2])
        shutil.copytree(good[new][2], folders[2])
        VARIANTS[name](folders[2])
        code, said, *found = compared(folders, tmp_path / "out", capsys)
        lines = said.err.splitlines()
        assert all(c.isprintable() or c == "\n" for c in said.out + said.err), name
        assert len(lines) <= 1, (name, said.err)
        if code:  # of other data, say: refused as a whole
            assert said.err.startswith("error: "), name
            assert "cnn" in said.err, name
        elif lines:
            assert said.err.startswith("left out: "), name
            assert "cnn" in said.err, name
            assert found == of_two, name
        else:
            assert not (new and name.split()[0] in FILES[1:]) or unchanged(folders[2], good[new][2]), name
            assert_nothing_wrong(name, found[0], table)


def unchanged(mine, theirs):
    return all((mine / name).read_bytes() == (theirs / name).read_bytes() for name in FILES)


def assert_nothing_wrong(name, found, table):
    """The numbers of the other runs are as they were."""
    rows, before = (list(csv.DictReader(io.StringIO(text))) for text in (found, table))
    assert len(rows) == len(before), name
    for mine, theirs in zip(rows, before, strict=True):
        if not theirs["folder"].endswith("cnn"):
            assert mine == theirs, name


def test_a_folder_used_again_and_one_trained_further_are_named(good, tmp_path, capsys):
    folders = start(good, tmp_path, True)
    shutil.copy(folders[1] / "metrics.csv", folders[2] / "metrics.csv")
    (folders[2] / "metrics.csv").write_text((folders[2] / "metrics.csv").read_text() + "3,30,2.0,0.4,0.9,\n")
    _, said, _, _ = compared(folders, tmp_path / "out", capsys)
    assert "cnn is not finished, or was used again: its metrics.csv and its summary.json were not" in said.err
    old = start(good, tmp_path / "old", False)
    (old[2] / "metrics.csv").write_text((old[2] / "metrics.csv").read_text() + "3,30,2.0,0.4,0.9,\n")
    _, said, _, _ = compared(old, tmp_path / "out2", capsys)
    assert "its metrics.csv ends with epoch 3, and its summary.json tells of 2" in said.err


def test_features_of_another_run_are_no_features_of_this_one(good, tmp_path, capsys):
    folders = start(good, tmp_path, True)
    tensors = load_file(folders[2] / "features.safetensors")
    save_file({k: v + torch.eye(*v.shape) for k, v in tensors.items()}, folders[2] / FILES[3], PATCH)
    _, said, _, _ = compared(folders, tmp_path / "out", capsys)
    assert "its features.safetensors and its summary.json were not written together" in said.err
