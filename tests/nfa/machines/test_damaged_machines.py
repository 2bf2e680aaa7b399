"""Files of machines are data: each is read rightly or refused in one line, and none of it is run."""

import contextlib
import json
import pickle
import random
import struct

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import nfa

torch.manual_seed(0)
X, IMAGES, Y = torch.randn(12, 4), torch.randn(12, 1, 6, 6), torch.arange(12) % 3
MADE = {
    nfa.RFM: (nfa.RFM(rounds=1), X),
    nfa.DeepRFM: (nfa.DeepRFM(depth=2, width=6), X),
    nfa.ConvRFM: (nfa.ConvRFM(rounds=1, depth=1), IMAGES),
    nfa.DeepConvRFM: (nfa.DeepConvRFM(rounds=1, depth=2, width=4, patch_size=2), IMAGES),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines")
    for machine, (new, points) in MADE.items():
        new.fit(points, Y).save(folder / machine.__name__)
    return folder


def contents(saved, machine):
    with safe_open(saved / machine.__name__, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return tensors, json.loads(metadata["state"]), metadata["format"]


def refused(machine, path):
    with pytest.raises(nfa.NfaError) as raised:
        machine.load(path)
    text = str(raised.value)
    assert type(raised.value) is nfa.NfaError
    assert len(text.splitlines()) == 1, text
    assert str(path) in text
    assert len(text) < 500 + len(str(path)), text


# ---- what the state says ----------------------------------------------------------------------------------


def put(*keys, value):
    def change(tensors, state):
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


def drop(*keys):
    def change(tensors, state):
        for key in keys[:-1]:
            state = state[key]
        state.pop(keys[-1])

    return change


STATES = {
    "no options": drop("options"),
    "no targets": drop("targets"),
    "no history": drop("history"),
    "options a list": put("options", value=[]),
    "options text": put("options", value="rounds"),
    "unknown option": put("options", "colour", value="red"),
    "option of a name": put("options", "device", value="cuda"),
    "option with a target": put("options", "_target_", value="os.system"),
    "ridge text": put("options", "ridge", value="1e-3"),
    "ridge a dictionary": put("options", "ridge", value={"_target_": "os.system"}),
    "ridge negative": put("options", "ridge", value=-1),
    "ridge NaN": put("options", "ridge", value=float("nan")),
    "power text": put("options", "power", value="half"),
    "rounds half": put("options", "rounds", value=1.5),
    "rounds negative": put("options", "rounds", value=-1),
    "rounds huge": put("options", "rounds", value=10**400),
    "seed text": put("options", "seed", value="a"),
    "solver of a module": put("options", "solver", value="os.system"),
    "targets a list": put("targets", value=[1, 2]),
    "targets of a text": put("targets", "classes", value="3"),
    "targets negative": put("targets", "classes", value=-3),
    "targets unknown": put("targets", "colour", value=1),
    "targets of other outputs": put("targets", "outputs", value=7),
    "flat a number": put("targets", "flat", value=3),
    "history empty": put("history", value=[]),
    "history text": put("history", value="none"),
    "history of numbers": put("history", value=[1, 2, 3]),
    "history null": put("history", value=None),
}
ROUNDS = {
    "best round beyond": put("best_round", value=99),
    "best round negative": put("best_round", value=-1),
    "best round text": put("best_round", value="0"),
    "no best round": drop("best_round"),
}
LAYERS = {
    "no shape": drop("shape"),
    "shape a number": put("shape", value=4),
    "shape empty": put("shape", value=[]),
    "shape of texts": put("shape", value=["4", "3"]),
    "shape negative": put("shape", value=[-4, 3]),
    "shape huge": put("shape", value=[10**9, 3]),
    "outputs huge": put("shape", 1, value=10**12),
    "width huge": put("options", "width", value=10**9),
    "more layers than in the file": lambda tensors, state: state["history"].extend(state["history"] * 50),
    "fewer layers than in the file": lambda tensors, state: state["history"].pop(),
}
OF = {
    nfa.RFM: STATES
    | ROUNDS
    | {
        "no bandwidth": drop("bandwidth"),
        "bandwidth text": put("bandwidth", value="os.system"),
        "bandwidth zero": put("bandwidth", value=0),
        "kernel of a module": put("options", "kernel", value="os.system"),
        "kernel a number": put("options", "kernel", value=3),
        "metric unknown": put("metric", value="curved"),
        "metric identity with a root": put("metric", value="identity"),
        "metric diagonal with a full root": put("metric", value="diagonal"),
        "metric null": put("metric", value=None),
    },
    nfa.DeepRFM: STATES
    | LAYERS
    | {
        "activation of a module": put("options", "activation", value="os.system"),
        "points of two sizes": put("shape", 0, value=[4, 3]),
    },
    nfa.ConvRFM: STATES
    | ROUNDS
    | {
        "patch size huge": put("options", "patch_size", value=10**6),
        "patch size another": put("options", "patch_size", value=2),
        "depth beyond the images": put("options", "depth", value=50),
    },
    nfa.DeepConvRFM: STATES
    | LAYERS
    | {
        "images huge": put("shape", 0, value=[1, 10**7, 10**7]),
        "images flat": put("shape", 0, value=[1, 6]),
        "patch size huge": put("options", "patch_size", value=10**6),
        "patch size another": put("options", "patch_size", value=3),
    },
}


@pytest.mark.parametrize(("machine", "name"), [(m, name) for m in OF for name in OF[m]])
def test_states(machine, name, saved, tmp_path):
    tensors, state, form = contents(saved, machine)
    OF[machine][name](tensors, state)
    save_file(tensors, tmp_path / "m", {"format": form, "state": json.dumps(state)})
    refused(machine, tmp_path / "m")


@pytest.mark.parametrize("machine", MADE)
@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "3", '"text"', "{}", "[" * 100_000, '{"options": {}}', "\x00", "{'a': 1}"]
)
def test_states_that_are_none(machine, text, saved, tmp_path):
    tensors, _, form = contents(saved, machine)
    save_file(tensors, tmp_path / "m", {"format": form, "state": text})
    refused(machine, tmp_path / "m")
    save_file(tensors, tmp_path / "m", {"format": form})
    refused(machine, tmp_path / "m")


# ---- the tensors ------------------------------------------------------------------------------------------

CHANGES = {
    "missing": lambda t: None,
    "empty": lambda t: t.flatten()[:0],
    "a dimension more": lambda t: t[None],
    "flat": lambda t: t.flatten() if t.dim() > 1 else t[:, None],
    "shorter": lambda t: t[:-1].clone(),
    "longer": lambda t: torch.cat([t, t]),
    "whole numbers": lambda t: t.long(),
    "half": lambda t: t.half(),
    "NaN": lambda t: t * float("nan"),
    "infinite": lambda t: t + float("inf"),
}
CORE = {
    nfa.RFM: ("offset", "centers", "coefficients", "root"),
    nfa.ConvRFM: ("centers", "coefficients", "transform"),
    nfa.DeepRFM: ("radial.centers", "radial.coefficients", "offset", "layer0.random.weight"),
    nfa.DeepConvRFM: ("sum.centers", "sum.coefficients", "layer0.feature_map.weight"),
}


@pytest.mark.parametrize(
    ("machine", "tensor", "change"), [(m, t, c) for m in CORE for t in CORE[m] for c in CHANGES]
)
def test_tensors(machine, tensor, change, saved, tmp_path):
    if (machine, tensor, change) == (nfa.ConvRFM, "transform", "missing"):
        return  # the machine of the first round, T = I, is saved like that
    tensors, state, form = contents(saved, machine)
    changed = CHANGES[change](tensors.pop(tensor))
    if changed is not None:
        tensors[tensor] = changed.contiguous()
    save_file(tensors, tmp_path / "m", {"format": form, "state": json.dumps(state)})
    refused(machine, tmp_path / "m")


# ---- the bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MADE)
def test_bytes(machine, saved, tmp_path):
    """Cut anywhere, or with a few bytes changed: refused, or read to numbers that are finite."""
    whole, points = (saved / machine.__name__).read_bytes(), MADE[machine][1]
    path, generator = tmp_path / "m", random.Random(0)
    for size in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(machine, path)
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(generator.choice((1, 3, 30))):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(nfa.NfaError):
            machine.load(path).predict(points)


def test_headers_that_claim_more_than_there_is(tmp_path):
    for length in (2**63 - 1, 10**9, 50):
        path = tmp_path / "m"
        header = b'{"offset":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
        path.write_bytes(struct.pack("<Q", length) + header)
        refused(nfa.RFM, path)


class Runs:
    """Runs a command when a pickle of it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("machine", MADE)
def test_other_files(machine, saved, tmp_path, monkeypatch):
    """Pickles, code and folders are no machines, and none of it is run or imported."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text("open('ran', 'w')\n")
    torch.save(Runs(tmp_path / "ran"), tmp_path / "torch")
    (tmp_path / "pickle").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    (tmp_path / "text").write_text("import evil\n")
    (tmp_path / "folder").mkdir()
    tensors, state, form = contents(saved, machine)
    save_file(tensors, tmp_path / "other", {"format": "evil:machine 1", "state": json.dumps(state)})
    save_file(tensors, tmp_path / "later", {"format": form.replace(" 1", " 99"), "state": json.dumps(state)})
    save_file(tensors, tmp_path / "plain")
    for name in ("torch", "pickle", "text", "folder", "other", "later", "plain", "evil.py", "nowhere"):
        refused(machine, tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("machine", MADE)
def test_what_is_intact_is_read(machine, saved):
    fitted, points = MADE[machine]
    assert torch.allclose(machine.load(saved / machine.__name__).scores(points), fitted.scores(points))
