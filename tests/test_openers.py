"""One door for every model: what a name means, what can be known before it is open, and what is kept."""
import gc
import json
import os
import weakref

import pytest

from cotstudy.decoding import Decoding, Model, Request
from cotstudy.models import load, pocket_models, scratch
from cotstudy.openers import OPENERS, Models, check_name, is_trainable, n_params_of, open_model, open_weights, scheme_of
from cotstudy.prompts import FORMATS, format_named
from cotstudy.recorded import Recorded
from cotstudy.servers import Budget, Server


@pytest.fixture
def said(tmp_path):
    path = tmp_path / "said.jsonl"
    path.write_text(json.dumps(dict(id="q", rationale="3 + 2 = 5", answer_text="5")))
    return f"recorded:{path}"


def test_every_opener_gives_a_model(said, tmp_path):
    folder = load("pocket/teacher").save(tmp_path / "student")
    for name in ("pocket/teacher", "scratch/0.1m", said, "api:m", str(folder), folder):
        assert isinstance(open_model(name), Model), name
    assert isinstance(open_model(said), Recorded) and isinstance(open_model("api:m"), Server)
    assert {scheme_of(n) for n in ("pocket/m", "pypi/m", "hub/m", "scratch/1m", said, "api:m", "vllm:m", "owner/model")} == set(OPENERS)
    assert scheme_of("owner/model") == scheme_of(folder) == ""


@pytest.mark.parametrize("name", ["ollama:m", "API:m", "recordd:x", "https://example.org/model", "s3:bucket"])
def test_an_unknown_scheme_is_one_line(name):
    for use in (open_model, check_name, is_trainable, n_params_of):
        with pytest.raises(ValueError, match="opens no model; expected pocket/, pypi/, hub/, scratch/") as error: use(name)
        assert "\n" not in str(error.value)


def test_a_folder_whose_name_has_a_colon_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    open_model("scratch/0.1m").save("run:3")
    assert open_model("run:3").id == load(tmp_path / "run:3").id and n_params_of("run:3")


def test_names_are_checked_without_opening():
    for name in ("pocket/m", "scratch/1m", "recorded:x", "api:m?tokens=5", "vllm:m", "owner/model",
                 "/some/folder"): assert check_name(name) == name
    with pytest.raises(ValueError, match="api_key"): check_name("api:m?api_key=x")


def test_random_weights_have_the_tokenizer_of_the_teacher():
    ours, teacher = open_model("scratch/0.1m", seed=3), load("pocket/teacher")
    assert ours.id == scratch("0.1m", teacher.tokenizer, 3).id != open_model("scratch/0.1m").id
    with pytest.raises(KeyError, match="no size '9m'"): open_model("scratch/9m")


@pytest.mark.parametrize("name", sorted(pocket_models()))
def test_parameters_are_counted_without_opening(name, tmp_path):
    assert n_params_of(name) == n_params_of(pocket_models()[name]) == load(name).n_params


def test_what_cannot_be_counted_or_trained(said):
    assert [n_params_of(n) for n in (said, "api:m", "vllm:m", "owner/model", "/no/folder")] == [0, None, None, None, None]
    assert n_params_of("scratch/1m") == 16 * 4 * 128**2
    with pytest.raises(KeyError): n_params_of("scratch/9m")
    assert [is_trainable(n) for n in ("pocket/m", "scratch/1m", "owner/model", said, "api:m", "vllm:m")] == [True] * 3 + [False] * 3
    for name in (said, "api:m", "vllm:m"):
        with pytest.raises(ValueError, match="has no weights here to train"): open_weights(name)
        with pytest.raises(ValueError, match="has no weights here to train"): Models().fresh(name)


def test_models_are_opened_once_and_those_not_used_are_let_go(said):
    models = Models(keep=3)
    first, kept = models.open("scratch/0.1m"), [models.open(said), models.open("api:m")]
    gone = weakref.ref(first.net)
    assert models.open("scratch/0.1m") is first and models.open("scratch/0.1m", seed=1) is not first
    del first
    for seed in range(2, 5): models.open("scratch/0.1m", seed=seed)
    gc.collect()
    assert gone() is None and sum(hasattr(m, "tokenizer") for *_, m in models.held.values()) == 3
    assert [models.open(said), models.open("api:m")] == kept
    models.release()
    assert [m for *_, m in models.held.values()] == kept
    assert models.fresh("scratch/0.1m") is not models.fresh("scratch/0.1m")


def test_the_one_used_last_stays():
    models = Models(keep=2)
    a, b = models.open("scratch/0.1m"), models.open("scratch/0.1m", seed=1)
    models.open("scratch/0.1m")
    models.open("scratch/0.1m", seed=2)
    assert models.open("scratch/0.1m") is a and models.open("scratch/0.1m", seed=1) is not b


def test_changed_weights_are_seen(tmp_path):
    models, folder = Models(), open_model("scratch/0.1m").save(tmp_path / "s")
    before = models.open(folder)
    weights = next(folder.glob("*.safetensors"))
    data, times = bytearray(weights.read_bytes()), weights.stat()
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copy that keeps the dates
    after = models.open(folder)
    assert after.id != before.id and models.open(folder) is after


def test_a_budget_in_the_name_is_one_for_all(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    one, two = (Models(tmp_path).open("api:m?tokens=100") for _ in range(2))
    one.budget.reserve(40, 40)
    with pytest.raises(ValueError, match="the budget is 100"): two.budget.reserve(20, 20)
    assert Models(tmp_path).open("api:m").budget.file is None and Models().open("api:m?tokens=100").budget.file is None


def test_a_recorded_model_is_asked_in_every_format(said):
    model = open_model(said)
    for fmt in FORMATS.values():
        c, = next(model.in_format(fmt).complete([Request("Why?", (0,), "q")], Decoding(1.0)))
        assert "3 + 2 = 5" in c.text and "5" in c.text.split(fmt.sep.strip())[-1] and model.in_format(fmt).one_step
    assert open_model("api:m").in_format(format_named("chat")).id.endswith("/chat")


def test_one_name_at_two_addresses_is_two_servers(monkeypatch):
    models = Models()
    monkeypatch.setenv("OPENAI_BASE_URL", "http://one:1/v1")
    one = models.open("api:m")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://two:1/v1")
    two = models.open("api:m")
    assert "one:1" in one.id and "two:1" in two.id and models.open("api:m") is two
    three = models.open("api:m", base_url="http://three:1/v1", concurrency=2)
    assert "three:1" in three.id and models.open("api:m") is models.open("api:m", base_url="http://three:1/v1", concurrency=2) is three
    monkeypatch.setenv("OPENAI_BASE_URL", "http://four:1/v1")
    assert "three:1" in models.open("api:m").id  # it was told where it is
    assert "five:1" in models.open("api:m", base_url="http://five:1/v1").id


@pytest.mark.parametrize("name, more, said", [
    ("api:k?tokens=100000", dict(budget=Budget(tokens=1000)), "budget"),
    ("api:k?base_url=http://a/v1", dict(base_url="http://b/v1"), "base_url")])
def test_of_two_limits_none_is_chosen_in_silence(name, more, said):
    with pytest.raises(ValueError, match=f"has a {said}, and another"): open_model(name, **more)
    assert open_model(name, budget=Budget()).model == "k"
    with pytest.raises(ValueError, match="tokens twice"): open_model("api:k?tokens=1000&tokens=100000")
