"""Names become networks, with the weights they say; what a checkpoint names cannot run anything."""

import importlib
import random
import sys

import pytest
import torch
from torch import nn

import nfa
from nfa import NfaError, zoo
from nfa.zoo import downloads, lab_runs

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
OWN = """
import torch
from subprocess import run
from torch import nn

class Net(nn.Sequential):
    def __init__(self, width=4, act=None):
        super().__init__(nn.Linear(3, width), act or nn.ReLU(), nn.Linear(width, 2))

def build(width=4):
    return Net(width)

def half():
    return Net().half()

def fixed():
    torch.manual_seed(7)
    return Net()

def needs(width):
    return Net(width)

def number():
    return 3

def broken():
    raise RuntimeError("no luck")

class Space:
    inner = Net

model = Net()
value = 3
shell = run
"""


def weights_of(model):
    return [p.detach().clone() for p in model.parameters()]


def equal(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def check_twin(loaded):
    """Two seeds, two networks of the architecture of the model; the global random state stays."""
    before = torch.get_rng_state(), random.getstate()
    first, again, other = loaded.twin(1), loaded.twin(1), loaded.twin(2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert equal(weights_of(first), weights_of(again))
    assert not equal(weights_of(first), weights_of(other))
    shapes = {k: v.shape for k, v in loaded.model.state_dict().items()}
    assert {k: v.shape for k, v in first.state_dict().items()} == shapes


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Module ``own_nets`` in an empty working directory, which is not on sys.path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    (tmp_path / "own_nets.py").write_text(OWN)
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("own_nets", None)


# ---- torchvision and timm --------------------------------------------------------------------------------


def test_torchvision_random():
    pytest.importorskip("torchvision")
    state = torch.get_rng_state()
    loaded = zoo.load("torchvision:squeezenet1_1@none", seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert (loaded.title, loaded.weights) == ("squeezenet1_1 (torchvision)", "random, seed 3")
    assert loaded.preprocessing.size == (224, 224)
    assert loaded.preprocessing.resize == 256
    assert loaded.preprocessing.mean == (0.485, 0.456, 0.406)
    assert loaded.preprocessing.interpolation == "bilinear"
    check_twin(loaded)
    assert equal(weights_of(loaded.model), weights_of(loaded.twin(3)))


def test_published_weights_by_name(monkeypatch):
    """The download is replaced; what is asked of it and what comes of it is the same."""
    models = pytest.importorskip("torchvision.models")
    state = models.squeezenet1_1().state_dict()
    asked = []

    def published(self, *args, **kwargs):
        asked.append(self.name)
        return state

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", published)
    for spec in ("squeezenet1_1", "squeezenet1_1@IMAGENET1K_V1", "SqueezeNet1_1@imagenet1k_v1"):
        loaded = zoo.load(f"torchvision:{spec}")
        assert loaded.weights == "IMAGENET1K_V1"
        assert equal(weights_of(loaded.model), [state[k] for k, _ in loaded.model.named_parameters()])
    assert asked == ["IMAGENET1K_V1"] * 3


@pytest.mark.parametrize("classes", [1000, 10])
@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "timm:test_vit"])
def test_weights_of_a_file(tmp_path, spec, classes):
    scheme, name = spec.split(":")
    package = pytest.importorskip("torchvision.models" if scheme == "torchvision" else "timm")
    make = package.get_model if scheme == "torchvision" else package.create_model
    other = make(name, num_classes=classes)
    torch.save(other.state_dict(), tmp_path / "mine.pth")
    loaded = zoo.load(spec, weights=tmp_path / "mine.pth")
    assert loaded.weights == "mine.pth"
    assert equal(weights_of(loaded.model), weights_of(other))
    check_twin(loaded)


def test_weights_of_another_network(tmp_path):
    pytest.importorskip("torchvision")
    torch.save(nn.Linear(3, 3).state_dict(), tmp_path / "mine.pth")
    with pytest.raises(NfaError, match="does not fit the network"):
        zoo.load("torchvision:squeezenet1_1", weights=tmp_path / "mine.pth")
    with pytest.raises(NfaError, match="one of the two"):
        zoo.load("torchvision:squeezenet1_1@IMAGENET1K_V1", weights=tmp_path / "mine.pth")


def test_segmentation_builds_what_its_weights_need():
    models = pytest.importorskip("torchvision.models")
    loaded = zoo.load("torchvision:lraspp_mobilenet_v3_large@none")
    assert loaded.preprocessing.size == (520, 520)
    assert isinstance(loaded.model, models.segmentation.LRASPP)


def test_timm_random():
    pytest.importorskip("timm")
    loaded = zoo.load("timm:test_vit@none")
    assert (loaded.title, loaded.weights) == ("test_vit (timm)", "random, seed 0")
    assert loaded.preprocessing.size == (160, 160)
    assert loaded.preprocessing.channels == 3
    assert loaded.preprocessing.interpolation == "bicubic"
    check_twin(loaded)


def no_network(*args, **kwargs):
    raise OSError("Name or service not known")


def test_a_failed_download_says_how_to_go_on(monkeypatch):
    pytest.importorskip("torchvision")
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setattr("os.path.exists", lambda path: False)
    with pytest.raises(NfaError, match=r"could not be downloaded.*resnet18@none.*--weights FILE"):
        zoo.load("torchvision:resnet18")


@pytest.mark.parametrize("spec", ["timm:test_vit", "hf:nobody/nothing-at-all"])
def test_no_network_is_one_line_at_once(monkeypatch, spec):
    pytest.importorskip("timm")
    pytest.importorskip("transformers")
    utils = pytest.importorskip("huggingface_hub.utils")
    monkeypatch.setattr(utils, "get_session", no_network)
    monkeypatch.setattr("nfa.zoo.timm_nets.cached_file", lambda *args: None)
    with pytest.raises(NfaError, match="could not be downloaded") as caught:
        zoo.load(spec)
    assert "\n" not in str(caught.value)


def test_timm_weights_come_from_the_cache(monkeypatch, tmp_path):
    timm = pytest.importorskip("timm")
    safetensors = pytest.importorskip("safetensors.torch")
    published = timm.create_model("test_vit")
    safetensors.save_file(published.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr("nfa.zoo.timm_nets.cached_file", lambda *args: str(tmp_path / "model.safetensors"))
    loaded = zoo.load("timm:test_vit")
    assert loaded.weights == "r160_in1k"
    assert equal(weights_of(loaded.model), weights_of(published))


# ---- transformers ----------------------------------------------------------------------------------------


def saved(tmp_path, cls, **options):
    transformers = pytest.importorskip("transformers")
    made = getattr(transformers, cls)
    model = made(made.config_class(**options))
    model.save_pretrained(tmp_path)
    return model


def test_hf_text(tmp_path):
    options = {**TINY, "vocab_size": 40, "max_position_embeddings": 16}
    model = saved(tmp_path, "BertForSequenceClassification", **options)
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]))
    loaded = zoo.load(f"hf:{tmp_path}")
    assert type(loaded.model).__name__ == "BertForSequenceClassification"
    assert (loaded.weights, loaded.notes, loaded.preprocessing) == ("pretrained", [], None)
    assert equal(weights_of(loaded.model), weights_of(model))
    assert loaded.tokenize("a b") == [5, 6]
    check_twin(loaded)
    ids = torch.randint(0, 40, (3, 6))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 6])
    batch = {"input_ids": ids, "attention_mask": mask}
    report = nfa.audit(loaded.model, [batch], output_fn=loaded.output_fn, nulls=2, chunk=2)
    assert "bert.encoder.layer.0.attention.self.query" in [row.layer for row in report.rows if row.measured]


def test_hf_language_model_keeps_no_cache(tmp_path):
    saved(tmp_path, "GPT2LMHeadModel", n_embd=16, n_layer=1, n_head=2, vocab_size=20, n_positions=8)
    loaded = zoo.load(f"hf:{tmp_path}@none", seed=1)
    assert loaded.weights == "random, seed 1"
    assert loaded.tokenize is None
    raw = loaded.model(torch.randint(0, 20, (2, 4)))
    assert raw.past_key_values is None
    assert loaded.output_fn(raw).shape == (2, 4, 20)
    check_twin(loaded)


def test_hf_images(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torchvision")
    saved(tmp_path, "ViTModel", **TINY, image_size=8, patch_size=4)
    size = {"shortest_edge": 10}
    transformers.CLIPImageProcessor(size=size, crop_size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    loaded = zoo.load(f"hf:{tmp_path}")
    known = loaded.preprocessing
    assert (known.size, known.resize, known.interpolation, known.channels) == ((8, 8), 10, "bicubic", 3)
    assert known.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert loaded.tokenize is None
    assert loaded.output_fn(loaded.model(torch.randn(2, 3, 8, 8))).shape == (2, 5, 16)


def test_hf_names_what_the_files_lack(tmp_path):
    model = saved(tmp_path, "ViTModel", **TINY, image_size=8, patch_size=4)
    model.config.architectures = ["ViTForImageClassification"]
    model.config.save_pretrained(tmp_path)
    loaded = zoo.load(f"hf:{tmp_path}")
    assert "classifier.bias, classifier.weight" in loaded.notes[0]
    assert loaded.preprocessing is None
    again = zoo.load(f"hf:{tmp_path}")
    assert equal(weights_of(loaded.model), weights_of(again.model))


def test_hf_runs_no_code_of_the_folder(tmp_path):
    pytest.importorskip("transformers")
    code = '{"model_type": "mine", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}'
    (tmp_path / "config.json").write_text(code)
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'trace')!r}, 'w')")
    with pytest.raises(NfaError, match="transformers cannot build"):
        zoo.load(f"hf:{tmp_path}")
    assert not (tmp_path / "trace").exists()


def test_hf_weights_that_are_pickles_of_code_are_refused(tmp_path):
    import os

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'trace'}",)

    saved(tmp_path, "ViTModel", **TINY, image_size=8, patch_size=4)
    (tmp_path / "model.safetensors").unlink()
    torch.save(Evil(), tmp_path / "pytorch_model.bin")
    with pytest.raises(NfaError, match="cannot"):
        zoo.load(f"hf:{tmp_path}")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("name", ["./nothing", "/no/where", "{}"])
def test_hf_no_folder(tmp_path, name):
    pytest.importorskip("transformers")
    with pytest.raises(NfaError, match=r"no folder|no config.json"):
        zoo.load(f"hf:{name.format(tmp_path)}")


# ---- own code --------------------------------------------------------------------------------------------


def test_own_function(own, tmp_path):
    path = list(sys.path)
    loaded = zoo.load("own_nets:build")
    assert (loaded.title, loaded.weights) == ("own_nets:build", "as built by own_nets:build")
    check_twin(loaded)
    torch.save(loaded.twin(5).state_dict(), tmp_path / "w.pt")
    filled = zoo.load("own_nets:Space.inner", weights="w.pt")
    assert filled.weights == "w.pt"
    assert equal(weights_of(filled.model), weights_of(loaded.twin(5)))
    assert zoo.load("own_nets:model").twin is None
    with pytest.raises(NfaError, match=r"float16 weights.*return model\.float\(\)"):
        zoo.load("own_nets:half")
    assert sys.path == path


def test_own_function_without_randomness_has_no_twin(own):
    loaded = zoo.load("own_nets:fixed")
    with pytest.raises(NfaError, match="same weights under every seed"):
        loaded.twin(1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_nets:biuld", "own_nets has no 'biuld'; near ones: build"),
        ("own_nets:needs", "called without arguments, raised TypeError"),
        ("own_nets:number", "must return an nn.Module, got a int"),
        ("own_nets:broken", "raised RuntimeError: no luck"),
        ("own_nets:value", "is a int: expected a function"),
        ("no_such_module:build", "cannot import no_such_module"),
        ("torchvison:resnet18", "near ones: torchvision"),
        ("resnet18", "did you mean torchvision:resnet18?"),
        ("ResNet18@none", "did you mean torchvision:resnet18@none?"),
        ("test_vit", "did you mean timm:test_vit?"),
        ("own_nets.py", "did you mean file:own_nets.py?"),
        ("", "expected torchvision:NAME"),
        ("torchvision:", "expected torchvision:NAME"),
        ("torchvision:resnet81", "no network 'resnet81'; near ones: resnet18"),
        ("torchvision:quantized_resnet18", "no derivatives; take resnet18"),
        ("torchvision:resnet18@V9", "no weights 'V9': expected IMAGENET1K_V1 or none"),
        ("torchvision:mnasnet1_3@IMAGENET1K_V7", "expected IMAGENET1K_V1"),
        ("timm:resnet81", "no network 'resnet81'; near ones"),
        ("timm:resnet18.nobody", "no weights 'nobody' of resnet18: expected one of resnet18.a1_in1k"),
        ("timm:resnet18@V1", "expected none after the @"),
        (
            "timm:botnet50ts_256",
            "no weights for botnet50ts_256: give timm:botnet50ts_256@none or --weights FILE",
        ),
    ],
)
def test_mistakes_are_one_sentence(own, spec, message):
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    with pytest.raises(NfaError) as caught:
        zoo.load(spec)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_zoo_names_the_extra(monkeypatch):
    for name in [m for m in sys.modules if m.split(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "timm":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(NfaError, match=r'needs the package timm: pip install "neural-feature-ansatz\[zoo\]"'):
        zoo.load("timm:resnet18")
    pytest.importorskip("torchvision")
    assert zoo.list_models("resnet18") == ["torchvision:resnet18@IMAGENET1K_V1"]


def test_list_models():
    pytest.importorskip("torchvision")
    pytest.importorskip("timm")
    everything = zoo.list_models()
    assert "torchvision:resnet50@IMAGENET1K_V2" in everything
    assert "timm:resnet18.a1_in1k" in everything
    assert everything == sorted(everything)
    assert zoo.list_models("torchvision:resnet5*") == [
        "torchvision:resnet50@IMAGENET1K_V1",
        "torchvision:resnet50@IMAGENET1K_V2",
    ]
    assert zoo.list_models("resnet18*")[-1].startswith("torchvision:")
    assert zoo.list_models("no such network") == []


# ---- runs of the lab -------------------------------------------------------------------------------------


@pytest.fixture
def lab_run(run):
    """A run of two epochs on digits, in the working directory."""
    return run(
        "model=mlp", "model.width=8", "training.init_scale=0.5", "data.normalize=channel", folder="mine"
    )


def test_a_run(lab_run):
    state = torch.load("mine/checkpoints/last.ckpt", weights_only=True)
    loaded = zoo.load("file:mine")
    assert (loaded.title, loaded.weights) == ("MLP (mine)", "last.ckpt, 2 epochs")
    ours = loaded.model.state_dict()
    assert all(torch.equal(state["state_dict"][f"network.{k}"], v) for k, v in ours.items())
    known = loaded.preprocessing
    assert (known.size, known.channels, known.resize) == ((8, 8), 1, None)
    assert known.mean[0] == pytest.approx(0.3, abs=0.02)
    assert known.std[0] == pytest.approx(0.375, abs=0.02)
    rows = [row for row in lab_run.rows if row.epoch == 0]
    assert [row.layer for row in loaded.initial.rows] == [row.layer for row in rows]
    assert loaded.initial.weights["hidden1"].shape == (1, 8, 64)
    assert not torch.equal(loaded.initial.weights["hidden1"][0], loaded.model.hidden1.weight)
    check_twin(loaded)
    scale = loaded.initial.weights["hidden1"].std() / loaded.twin(1).hidden1.weight.detach().std()
    assert float(scale) == pytest.approx(1, abs=0.15)  # init_scale belongs to the architecture
    report = nfa.audit(loaded.model, [torch.randn(4, 1, 8, 8)], initial_state=loaded.initial, nulls=2)
    assert report.row("hidden2").cnfc == report.row("hidden2").cnfc  # a number


def test_the_normalisation_of_a_run_is_that_of_its_data(run):
    from datamodules import Digits

    run("model=mlp", "model.width=4", "trainer.max_epochs=1", "callbacks=none", folder="mine")
    loaded = zoo.load("file:mine/checkpoints/last.ckpt")
    data = Digits(n_train=300, n_test=100)
    data.setup()
    raw = data._split("test").x[:5].float()
    mean, std = (
        torch.tensor(v).view(-1, 1, 1) for v in (loaded.preprocessing.mean, loaded.preprocessing.std)
    )
    torch.testing.assert_close((raw - mean) / std, data._transform.normalize(data._split("test").x[:5]))
    assert loaded.initial is None


def test_a_mean_for_every_pixel_is_not_told_as_one_for_all(run):
    run("model=mlp", "model.width=4", "data.normalize=feature", "callbacks=none", folder="mine")
    loaded = zoo.load("file:mine")
    assert loaded.preprocessing is None
    assert "data.normalize=feature" in loaded.notes[0]


def checkpoint(net, state=None, path="some.ckpt"):
    torch.save({"hyper_parameters": {"net": net}, "state_dict": state or {"w": torch.ones(2)}}, path)
    return f"file:{path}"


def test_own_code_is_named_by_the_user(own):
    """The network of a run of one's own code: named on the command line, with what the run kept of it."""
    state = {f"network.{k}": v for k, v in zoo.load("own_nets:Net").model.state_dict().items()}
    content = {
        "hyper_parameters": {"net": {"_target_": "own_nets.Net", "width": 4}, "init_scale": 0.5},
        "state_dict": state,
        "inputs": {"mean": [0.5], "std": [0.2], "size": [8, 8], "channels": 1},
    }
    (own / "mine" / "checkpoints").mkdir(parents=True)
    torch.save(content, "mine/checkpoints/last.ckpt")
    sys.modules.pop("own_nets")
    with pytest.raises(NfaError, match=r"nfa audit own_nets:Net --weights mine.checkpoints.last.ckpt$"):
        zoo.load("file:mine")
    assert "own_nets" not in sys.modules
    for weights in ("mine", "mine/checkpoints/last.ckpt"):
        loaded = zoo.load("own_nets:Net", weights=weights)
        assert equal(weights_of(loaded.model), list(state.values()))
        assert (loaded.weights, loaded.preprocessing.mean) == ("last.ckpt", (0.5,))
        check_twin(loaded)
        assert loaded.twin(0)[0].weight.abs().max() < 0.5 * 3**-0.5
    other = zoo.load("own_nets:build", weights="mine")  # another function: called without arguments
    assert equal(weights_of(other.model), list(state.values()))


@pytest.mark.parametrize("width", [{"_target_": "own_nets.build"}, "../x", [["a.b"]]])
def test_what_a_run_kept_of_own_code_is_plain(own, width):
    torch.save(
        {
            "hyper_parameters": {"net": {"_target_": "own_nets.Net", "width": width}},
            "state_dict": {"w": torch.ones(2)},
        },
        "x.ckpt",
    )
    with pytest.raises(NfaError, match=r"a file may give layers|expected a word"):
        zoo.load("own_nets:Net", weights="x.ckpt")


def test_checkpoints_that_do_not_say_their_network(tmp_path, own):
    torch.save({"state_dict": {"a": torch.ones(2)}, "pytorch-lightning_version": "2.6"}, "kernel.ckpt")
    with pytest.raises(NfaError, match="does not say what network it holds"):
        zoo.load("file:kernel.ckpt")
    torch.save({"a": torch.ones(2)}, "plain.pth")
    with pytest.raises(NfaError, match="holds weights and no network: name the network"):
        zoo.load("file:plain.pth")
    with pytest.raises(NfaError, match=r"no checkpoint and no run folder at plian.pth; near ones: plain.pth"):
        zoo.load("file:plian.pth")
    with pytest.raises(NfaError, match=r"has no checkpoints.last.ckpt"):
        zoo.load("file:.")
    with pytest.raises(NfaError, match=r"gone_nets\.Net, of which nothing was imported"):
        zoo.load(checkpoint({"_target_": "gone_nets.Net"}))
    layer = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}
    with pytest.raises(NfaError, match="cannot be built with the arguments kept there"):
        zoo.load(checkpoint({**layer, "depth": 3}))
    with pytest.raises(NfaError, match="does not fit the network"):
        zoo.load(checkpoint(layer, {"network.x": torch.ones(1)}))


def test_a_run_of_a_network_built_at_its_first_input(run, tmp_path):
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "lazy.yaml").write_text("_target_: tests.nets.LazyNet\n")
    run("--config-dir", "conf", "model=lazy", "trainer.max_epochs=1", "callbacks=none", folder="mine")
    loaded = zoo.load("tests.nets:LazyNet", weights="mine")
    report = nfa.audit(loaded.model, [torch.randn(4, 1, 8, 8)], nulls=2)
    assert [(row.in_features, row.out_features) for row in report.rows] == [(64, 16), (16, 10)]
    assert nfa.layers.maps.has_unbuilt(loaded.twin(1))


@pytest.mark.parametrize(("reachable", "fetched"), [(True, True), (True, False), (False, True)])
def test_from_the_cache_first_then_over_the_network(monkeypatch, reachable, fetched):
    """What is not in the cache is asked for once the hub has answered, and once only."""
    asked = []

    def get(local):
        asked.append("cache" if local else "network")
        if local or not fetched:
            raise OSError("<nothing of that name>")
        return "net"

    def check(spec):
        asked.append("hub")
        if not reachable:
            raise downloads.no_download(spec, OSError("no answer"))

    monkeypatch.setattr(downloads, "check_reachable", check)
    if reachable and fetched:
        assert downloads.cached_or_fetched(get, "hf:me/net") == "net"
    else:
        why = "nothing of that name" if reachable else "no answer"
        with pytest.raises(
            NfaError, match=rf"^hf:me/net could not be downloaded \({why}\): go on with hf:FOLDER"
        ):
            downloads.cached_or_fetched(get, "hf:me/net")
    assert asked == ["cache", "hub", "network"] if reachable else ["cache", "hub"]
    assert downloads.cached_or_fetched(lambda local: local, "hf:me/net") is True


def test_the_first_file_that_is_in_the_cache(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    known = {"second": "/cache/second", "third": "/cache/third", "absent": object()}
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda repo, name: known.get(name))
    assert downloads.cached_file("me/net", ["first", "absent", "second", "third"]) == "/cache/second"
    assert downloads.cached_file("me/net", ["first", "absent"]) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"initial_rows": {"layer": "a"}}, "measured at initialisation is damaged"),
        ({"initial_rows": [3]}, "measured at initialisation is damaged"),
        ({"initial_rows": [{"layer": "a"}]}, "measured at initialisation is damaged"),
        ({"initial_rows": [{"layer": "a", "kind": 3, "in_features": 1, "out_features": 1}]}, "is damaged"),
        ({"initial_weights": [torch.ones(1, 2, 2)]}, "measured at initialisation is damaged"),
        ({"initial_weights": {"a": [1.0]}}, "weights at initialisation are damaged"),
        ({"initial_weights": {"a": torch.ones(1, 2, 2, dtype=torch.int64)}}, "weights at initialisation are"),
    ],
)
def test_what_a_stranger_says_a_monitor_measured(change, words):
    row = {"layer": "a", "kind": "linear", "in_features": 2, "out_features": 2, "of a newer version": 3}
    state = {"initial_rows": [row], "initial_weights": {"a": torch.ones(1, 2, 2)}}
    callbacks = {"other": 3, "none": {"initial_rows": None}, "ansatz": state}
    found = lab_runs._initial({"callbacks": callbacks}, "x.ckpt")
    assert [(row.layer, row.in_features) for row in found.rows] == [("a", 2)]
    assert torch.equal(found.weights["a"], torch.ones(1, 2, 2))
    with pytest.raises(NfaError, match=f"^x.ckpt: .*{words}"):
        lab_runs._initial({"callbacks": {"ansatz": {**state, **change}}}, "x.ckpt")
    for nothing in ({}, {"callbacks": 3}, {"callbacks": {"ansatz": {**state, "initial_rows": []}}}):
        assert lab_runs._initial(nothing, "x.ckpt") is None
