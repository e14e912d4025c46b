"""The pocket world: nothing asked was told, nothing is unrepresentable, builds repeat and resume, what ships loads plainly."""
from hashlib import sha256
from pathlib import Path
from random import Random
import json
import re

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import cotstudy
from cotstudy import pocket
from cotstudy.models import load, threads
from cotstudy.pocket import (FORMAT, SIZES, Reading, batch, build, document, exercise, met, network, overlap, pocket_tokenizer,
                             questions_read, rate, solved, stem, surprise, told, weighed)
from cotstudy.procedural import FAMILIES, procedural_task
from cotstudy.prompts import render_completion, render_prompt

SHIPPED = Path(cotstudy.__file__).parent / "pocket_models"
TABLE = json.loads((SHIPPED / "models.json").read_text())
shipped = pytest.mark.parametrize("name", sorted(SIZES))

@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threads(1): yield

@pytest.fixture(scope="module")
def tok(): return pocket_tokenizer()

def test_every_size_ships():
    assert set(TABLE) == set(SIZES)

@settings(max_examples=300, deadline=None)
@given(st.text())
def test_every_text_survives(tok, text):
    ids = tok(text)["input_ids"]
    assert tok.decode(ids) == text
    assert not {tok.pad_token_id, tok.bos_token_id, tok.eos_token_id} & set(ids) or any(s in text for s in ("<pad>", "<bos>", "<eos>"))

@pytest.mark.parametrize("c", "abcdefghijklmnopqrstuvwxyz")
def test_spaced_letters_are_single_tokens(tok, c):
    assert len(tok(f" {c} {c} {c}")["input_ids"]) == 3

@pytest.mark.parametrize("c", "0123456789")
def test_digits_are_single_tokens(tok, c):
    assert [tok.decode(i) for i in tok(c * 5)["input_ids"]] == [c] * 5

@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_prompt_is_a_token_prefix(tok, name):
    f, rng = FAMILIES[name], Random(3)
    for _ in range(20):
        i = f.draw(rng, **f.difficulty)
        r = f.rationale(i, rng)
        for mode, text in (("cot", r), ("label", None)):
            p, c = render_prompt(FORMAT, i.question, mode), render_completion(FORMAT, text, i.answer)
            assert tok(p + c)["input_ids"] == tok(p)["input_ids"] + tok(c)["input_ids"]

def test_text_is_a_function_of_seed_and_step():
    a, b = ([next(Reading().documents(s, 5)[2]) for s in (0, 0, 1)] for _ in range(2))
    assert a == b and a[0] == a[1] != a[2]
    with pytest.raises(ValueError, match="arith"): Reading(families=("chess",)).documents(0, 0)

@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_nothing_asked_was_told(name):
    rng = Random(11)
    texts = [document(rng, k % 8 == 0) for k in range(1500)]
    task = procedural_task(name, 0, 0, 300, seed=9)
    assert overlap([task], texts)[name] == dict(n=300, question=0, stem=0, twin=0)
    planted = task.split("test")[0].question
    assert overlap([task], [f"Q: {planted}\nA: x"])[name]["question"] == 1
    if not FAMILIES[name].pretrained: assert not any(stem(i.question) in t for t in texts for i in task.split("test")[:50])

def test_what_a_shipped_model_read_is_made_anew():
    read = questions_read("pocket/xs", 0.01)
    assert len(read) > 200 and read == questions_read("pocket/xs", 0.01) != questions_read("pocket/xs", 0.01, seed=1)
    tok, heard = AutoTokenizer.from_pretrained(SHIPPED / "xs"), []
    ids, _ = batch(tok, Reading(worked=False), 0, 700, heard.append)
    text = tok.decode(ids.flatten())
    assert torch.equal(ids, batch(tok, Reading(worked=False), 0, 700)[0])  # listening changes nothing
    assert sum(i.question in text for i in heard) > 0.8 * len(heard) > 4  # a row's last question may be cut
    with pytest.raises(FileNotFoundError, match="train.json"): questions_read("facebook/opt-125m")
    with pytest.raises(ValueError, match="share is 0"): questions_read("pocket/xs", 0)

@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_no_test_question_is_in_the_real_text(name):
    read = questions_read("pocket/s", 0.01)
    asked = procedural_task(name, 0, 0, 100, seed=7).split("test")
    found = met(asked, read)
    assert not any(any(v) for view, v in found.items() if view != "situation")
    assert name in ("strategy", "shuffle", "sst") or not any(found["situation"])  # told in another order; chapter 60 counts them
    told_ = met(asked, [*read, asked[3]])
    assert told_["question"][3] and told_["twin"][3] and told_["scenario"][3]

def test_students_read_no_worked_solution_and_teachers_some_with_slips():
    rng = Random(2)
    student, teacher = ([document(rng, k % 8 == 0, worked=worked, slips=0.5) for k in range(800)] for worked in (False, True))
    step = "Let's think step by step"
    assert not any(step in t for t in student) and sum("Q: " in t for t in student) > 100 and sum(step in t for t in teacher) > 400
    assert {size.worked for size in SIZES.values()} == {True, False}

def test_slips_are_as_many_as_said():
    def wrong(slips):
        rng, n = Random(4), 0
        for _ in range(400):
            i = told(FAMILIES["letters"], rng)
            n += solved(i, FAMILIES["letters"], rng, slips=slips).strip().endswith(f": {i.answer}")
        return 1 - n / 400
    assert wrong(0) == 0 and 0.2 < wrong(0.3) < 0.4 and wrong(1) == 1

def test_rows_begin_with_a_document_and_never_hold_padding(tok):
    for step, shape in ((0, (8, 192)), (7, (2, 768))):
        x, weights = batch(tok, Reading(primer=0, page_every=8), 0, step)
        assert x.shape == weights.shape == shape and (x != tok.pad_token_id).all() and (x == tok.eos_token_id).any()

def test_the_words_of_a_question_count_less_and_all_others_fully(tok):
    rng = Random(4)
    for text in (document(rng, k % 3 == 0) for k in range(60)):
        ids, weights = weighed(tok, text, 0.25)
        assert ids == tok(text)["input_ids"] + [tok.eos_token_id] and weights[-1] == 1
        told = "".join(re.findall(r"Q: .*\n", text))
        assert sum(w == 0.25 for w in weights) == len(tok(told)["input_ids"]) and set(weights) <= {0.25, 1.0}

def test_a_primer_holds_exercises_only():
    assert not any("Q:" in t for s in (0, Reading().primer - 1) for _, t in zip(range(40), Reading().documents(0, s)[2]))
    assert sum("Q:" in t for _, t in zip(range(40), Reading().documents(0, Reading().primer)[2])) > 20

def test_exercises_are_right():
    for k in range(400):
        text = exercise(Random(k))
        if text.startswith("Copy: "):
            a, b, end = text.removeprefix("Copy: ").split(".")
            assert a == b.strip() and not end
        else:
            said, *asked = re.findall(r"[^.]+", text)
            # the last value holds
            known = dict(p.strip().split(" ") for p in said.split(","))
            assert asked and all(known[q] == a for q, a in (x.strip().split(": ") for x in asked))

def test_a_model_that_cannot_copy_is_surprised(tok):
    net = network(SIZES["xs"], tok, 0)
    assert surprise(net, tok) > 4 and net.training
    assert surprise(load("pocket/teacher").net, tok) < 0.5

def test_rate_rises_and_falls_to_zero():
    r = [rate(k, 400) for k in range(400)]
    assert max(r) == 1 and r[0] < 0.05 and 0 < r[-1] < 0.01 and all(a >= b for a, b in zip(r[60:], r[61:])) and r[80] == 1 > r[81]

def test_interrupted_build_equals_undisturbed(tmp_path):
    kw = dict(steps=4, stages=1, n_items=0, progress=None)
    build("xs", tmp_path / "a", **kw)
    build("xs", tmp_path / "b", until=1, **kw)
    assert not (tmp_path / "b/model.safetensors").exists()
    build("xs", tmp_path / "b", **kw)
    a, b = (load_file(tmp_path / k / "model.safetensors") for k in "ab")
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert json.loads((tmp_path / "a/train.json").read_text())["n_tok"] == 4 * 8 * 192

def test_unknown_size_says_which_exist(tmp_path):
    with pytest.raises(KeyError, match="teacher"): build("huge", tmp_path)

def test_family_spans_most_of_an_order_of_magnitude(tok):
    n = [network(s, tok, 0).num_parameters() for s in SIZES.values() if not s.worked]
    n.append(network(SIZES["teacher"], tok, 0).num_parameters())
    assert len(n) >= 4 and n == sorted(n) and n[-1] > 8 * n[0] and 80_000 < n[0] < 150_000

@shipped
def test_shipped_model_is_what_the_table_says(name):
    folder = SHIPPED / TABLE[name]["folder"]
    assert sha256((folder / "model.safetensors").read_bytes()).hexdigest() == TABLE[name]["sha256"]
    assert {"config.json", "tokenizer.json", "README.md", "card.json", "train.json"} <= {p.name for p in folder.iterdir()}
    assert not (folder / "resume").exists()
    card = json.loads((folder / "card.json").read_text())["measured"]
    assert set(card) == set(FAMILIES) and all(0 <= m["cot"] <= 1 and m["n"] >= 100 for m in card.values())

@shipped
def test_shipped_model_loads_plainly(tok, name):
    folder = SHIPPED / TABLE[name]["folder"]
    net, own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)
    assert net.num_parameters() == TABLE[name]["params"] == network(SIZES[name], tok, 0).num_parameters()
    assert own.get_vocab() == tok.get_vocab(), "the tokenizer must be the one the recipe makes"
    out = net.generate(**own(render_prompt(FORMAT, "Ann has 3 pens. Ann buys 2 more. How many pens does Ann have now?"),
                             return_tensors="pt", return_token_type_ids=False),
                       max_new_tokens=60, do_sample=False)
    assert out[0, -1] == own.eos_token_id and ("So the answer is:" in own.decode(out[0]) or not SIZES[name].worked)
    assert load(f"pocket/{name}").net.num_parameters() == net.num_parameters()

def test_shipped_models_are_small():
    weights = list(SHIPPED.rglob("*.safetensors"))
    assert len(weights) == len(TABLE) and 1e6 < sum(p.stat().st_size for p in weights) <= 20e6

def test_a_build_leaves_threads_and_random_numbers_alone(tmp_path, monkeypatch):
    before, state = torch.get_num_threads(), torch.get_rng_state()
    monkeypatch.setattr(pocket, "build", lambda *a, **kw: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(pocket, "ship", lambda *a, **kw: dict(made=torch.get_num_threads()))
    seen = []
    with threads(2):
        assert pocket.build_one("xs", tmp_path) == dict(made=1) and seen == [1]
        assert torch.get_num_threads() == 2
    monkeypatch.undo()
    a = network(SIZES["xs"], pocket_tokenizer(n_docs=50), 0)
    assert torch.get_num_threads() == before and torch.equal(state, torch.get_rng_state())
    torch.manual_seed(99)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), network(SIZES["xs"], pocket_tokenizer(n_docs=50), 0).parameters()))

def test_a_state_that_could_not_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    kw = dict(steps=4, stages=1, n_items=0, progress=None)
    build("xs", tmp_path / "a", until=1, **kw)
    state = tmp_path / "a/resume/state.safetensors"
    old = state.read_bytes()
    def full(tensors, path, **kw):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(pocket, "save_file", full)
    with pytest.raises(OSError, match="disk is full"): build("xs", tmp_path / "a", until=2, **kw)
    assert state.read_bytes() == old and [p.name for p in state.parent.iterdir()] == [state.name]
