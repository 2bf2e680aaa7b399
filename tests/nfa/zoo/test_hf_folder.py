"""A folder of transformers asks no network, runs nothing, and names nothing elsewhere."""

import contextlib
import json
import random
import socket

import pytest

from nfa import NfaError, zoo
from nfa.nets.imports import without_network

TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small network in a folder; every question to a network is written down."""
    transformers = pytest.importorskip("transformers")
    asked = []

    def note(host, *_, **__):
        asked.append(host)
        raise OSError("no network in a test")

    monkeypatch.setattr(socket, "getaddrinfo", note)
    model = transformers.ViTModel(transformers.ViTConfig(**TINY, image_size=8, patch_size=4))
    model.save_pretrained(tmp_path / "net")
    yield tmp_path / "net"
    assert asked == []


def changed(folder, name="config.json", **entries):
    path = folder / name
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **entries}))


def refused(folder, *words):
    for spec in (f"hf:{folder}", f"hf:{folder}@none"):
        with pytest.raises(NfaError) as error:
            zoo.load(spec)
        assert "\n" not in str(error.value)
        for word in words:
            assert word in str(error.value), str(error.value)


ELSEWHERE = {
    "backbone of the hub": ({"backbone": "someone/net"}, "another repository"),
    "backbone by address": ({"backbone": "hf_hub:someone/net"}, "another repository"),
    "nested": ({"backbone_config": {"backbone": "hf-hub:someone/net"}}, "backbone_config.backbone"),
    "in a list": ({"encoders": [{"architecture": "local-dir:/tmp"}]}, "encoders.architecture"),
    "base network": ({"base_model_name_or_path": "someone/net"}, "another network"),
    "kernels": ({"_attn_implementation": "someone/kernels"}, "code of another repository"),
    "weights by arguments": ({"model_args": {"checkpoint_path": "w.pth"}}, "weights elsewhere"),
    "published weights": ({"backbone_kwargs": {"pretrained": True}}, "weights elsewhere"),
    "quantised": ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
    "quantised inside": ({"text_config": {"quantization_config": {"bits": 4}}}, "text_config.quantization"),
    "layers without end": ({"num_hidden_layers": 10**9}, "at most 10000 layers"),
}


@pytest.mark.parametrize("case", ELSEWHERE)
def test_names_of_something_elsewhere_are_refused(folder, case):
    entries, words = ELSEWHERE[case]
    changed(folder, **entries)
    refused(folder, words)


def test_names_of_something_elsewhere_in_the_tokenizer(folder):
    changed(folder, "tokenizer_config.json", vocab_file="/etc/hostname")
    refused(folder, "a file elsewhere", "vocab_file")


def test_an_adapter_is_no_network(folder):
    changed(folder, "adapter_config.json", base_model_name_or_path="someone/net")
    refused(folder, "merge the two")


def test_harmless_notes_are_let_pass(folder):
    remote = {"AutoConfig": "someone/net--code.C", "AutoModel": "code.M"}
    changed(folder, _name_or_path="someone/net", auto_map=remote, url="https://example.org/x")
    (folder / "code.py").write_text(f"open({str(folder / 'trace')!r}, 'w')")
    assert type(zoo.load(f"hf:{folder}").model).__name__ == "ViTModel"
    assert not (folder / "trace").exists()


def test_code_of_another_repository_is_not_fetched(folder):
    changed(folder, model_type="mine", auto_map={"AutoConfig": "someone/net--code.C"})
    refused(folder, "transformers cannot build")


def test_a_timm_backbone_is_built_without_its_published_weights(folder):
    pytest.importorskip("timm")
    (folder / "config.json").unlink()
    changed(
        folder,
        model_type="timm_wrapper",
        architecture="test_vit",
        architectures=["TimmWrapperModel"],
        num_classes=3,
        pretrained_cfg={"hf_hub_id": "someone/net"},
    )
    assert zoo.load(f"hf:{folder}@none").weights == "random, seed 0"


def test_sizes_meet_the_memory(folder):
    changed(folder, intermediate_size=10**12)
    refused(folder, "of memory")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"model_type": 3}', '{"architectures": 5}', "[" * 100_000, "\x00\xff", '"a"'],
)
def test_damaged_configurations_are_one_line(folder, content):
    (folder / "config.json").write_text(content, encoding="latin-1")
    refused(folder)


@pytest.mark.parametrize("depth", [30, 5000])
def test_a_configuration_nested_without_end(folder, depth):
    (folder / "config.json").write_text('{"a":' * depth + "1" + "}" * depth)
    refused(folder, "nested more than" if depth == 30 else "config.json")


WRONG = {
    "text": "many", "negative": -4, "nothing": None, "list": [1], "fraction": 1.5, "zero": 0, "named": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_attention_heads", "image_size", "patch_size", "hidden_act"]
)
@pytest.mark.parametrize("kind", WRONG)
def test_values_of_the_wrong_kind_are_one_line(folder, key, kind):
    changed(folder, **{key: WRONG[kind]})
    with contextlib.suppress(NfaError):  # any other error is a defect
        zoo.load(f"hf:{folder}")


@pytest.fixture
def reads_text(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {**TINY, "vocab_size": 9, "max_position_embeddings": 16}
    transformers.BertModel(transformers.BertConfig(**sizes)).save_pretrained(tmp_path / "net")
    (tmp_path / "net" / "vocab.txt").write_text("[PAD] [UNK] [CLS] [SEP] [MASK] a b".replace(" ", "\n"))
    (tmp_path / "net" / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    return tmp_path / "net"


@pytest.mark.parametrize("seed", range(25))
def test_damaged_files_of_a_folder(reads_text, seed):
    """Cut at random: an error in one sentence, or a network that differs in nothing that is read."""
    rng = random.Random(seed)
    path = rng.choice(sorted(reads_text.iterdir()))
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))])
    with contextlib.suppress(NfaError):
        loaded = zoo.load(f"hf:{reads_text}")
        loaded.tokenize("a b c")


def test_a_tokenizer_without_the_word_for_unknown_ones(reads_text):
    (reads_text / "vocab.txt").write_text("a\nb")
    with pytest.raises(NfaError, match=r"the tokenizer of hf:.* cannot read the text"):
        zoo.load(f"hf:{reads_text}").tokenize("a c")


def test_within_a_folder_nothing_asks_a_network():
    before = socket.getaddrinfo
    with pytest.raises(OSError, match="a file or folder brings all it needs"), without_network("mine"):
        socket.create_connection(("example.org", 80), timeout=1)
    assert socket.getaddrinfo is before
