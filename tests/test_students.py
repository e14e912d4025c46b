"The seams of students: exact losses, exact resume, nothing cut in silence, memory that runs out."
import json
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, models as tokenizer_models, pre_tokenizers
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM, OPTConfig,
                          OPTForCausalLM,
                          PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration)

from cotstudy import students
from cotstudy.memory import memory_of, shape_of
from cotstudy.models import load
from cotstudy.sampling import LM
from cotstudy.students import (SCOTD, Example, Recipe, Row, Twins, backward, batch_at, choose_nll, encoded_nll, epoch_order, fingerprint,
                               ho_recipe, lr_at,
                               out_of_memory, padded_nll, parts_of, read_record, shared_nll, single_nll, step_rows, threads, tokenise,
                               train)

pytestmark = pytest.mark.usefixtures("one_thread")
V, BIN = 60, Path(sys.executable).parent


def words():
    "A tokenizer of the words w3 ... w59."
    t = Tokenizer(tokenizer_models.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, V)}, unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def net_of(kind, seed=0, dropout=0.0):
    torch.manual_seed(seed)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(vocab_size=V, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                                            num_key_value_heads=2, max_position_embeddings=128, attention_dropout=dropout)).eval()
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=128, attn_pdrop=dropout,
                                          resid_pdrop=dropout,
                                          embd_pdrop=dropout, eos_token_id=1, bos_token_id=1)).eval()
    if kind == "opt":
        return OPTForCausalLM(OPTConfig(vocab_size=V, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                                        max_position_embeddings=128,
                                        word_embed_proj_dim=16, dropout=dropout, pad_token_id=0, eos_token_id=1, bos_token_id=1)).eval()
    if kind == "window":
        return MistralForCausalLM(MistralConfig(vocab_size=V, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                                num_attention_heads=4,
                                                num_key_value_heads=2, sliding_window=4, max_position_embeddings=128)).eval()
    return T5ForConditionalGeneration(T5Config(vocab_size=V, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, dropout_rate=dropout,
                                               pad_token_id=0,
                                               eos_token_id=1, decoder_start_token_id=0)).eval()


def model(kind="llama", seed=0, dropout=0.0): return LM(net_of(kind, seed, dropout), words(), kind, f"{kind}{seed}")


def random_rows(seed=0, n=4, most=6):
    r = random.Random(seed)
    ids = lambda low, high: tuple(r.randint(3, V - 1) for _ in range(r.randint(low, high)))
    return [Row(f"i{k}", ids(1, 20), tuple(ids(1, 15) for _ in range(m)), tuple(r.choice([1, 1, 2]) for _ in range(m)))
            for k, m in enumerate(r.randint(1, most) for _ in range(n))]


def text(ids): return " ".join(f"w{i}" for i in ids)


def examples(seed=0, n=5, most=4):
    return [Example(r.instance, text(r.prompt), tuple(text(c) for c in r.completions)) for r in random_rows(seed, n, most)]


def library_nll(lm, rows):
    "One completion at a time, through the model's own labels: nothing of ours."
    total = 0.0
    for r in rows:
        for c, w in zip(r.completions, r.weights):
            if lm.kind == "decoder":
                ids = torch.tensor([r.prompt + c])
                labels = ids.clone()
                labels[:, : len(r.prompt)] = -100
                loss = lm.net(input_ids=ids, labels=labels).loss
            else: loss = lm.net(input_ids=torch.tensor([r.prompt]), labels=torch.tensor([c])).loss
            total = total + loss * len(c) * w
    return total


def gradient(value, net):
    net.zero_grad()
    value.backward()
    return torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])


def distance(a, b): return ((a - b).norm() / b.norm()).item()


# ---- the loss

@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "t5"])
@pytest.mark.parametrize("seed", [0, 1])
def test_shared_rows_give_the_loss_and_gradient_of_single_completions(kind, seed):
    lm, rows = model(kind, seed), random_rows(seed)
    reference = library_nll(lm, rows)
    value = (encoded_nll if kind == "t5" else shared_nll)(lm.net, rows)
    assert value.item() == pytest.approx(reference.item(), rel=1e-5)
    assert distance(gradient(value, lm.net), gradient(library_nll(lm, rows), lm.net)) < 1e-5


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "window"])
def test_padded_is_the_same_loss(kind):
    lm, rows = model(kind), random_rows(3)
    assert padded_nll(lm.net, rows).item() == pytest.approx(library_nll(lm, rows).item(), rel=1e-5)


@pytest.mark.parametrize("n_completions", [1, 2])
def test_rows_without_branches(n_completions):
    lm = model()
    rows = [Row(r.instance, r.prompt, r.completions[:n_completions], r.weights[:n_completions]) for r in random_rows(4)]
    assert distance(gradient(shared_nll(lm.net, rows), lm.net), gradient(library_nll(lm, rows), lm.net)) < 1e-5


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=5)), min_size=1, max_size=4), st.integers(0,
        99))
def test_shared_equals_padded_for_any_lengths(shape, seed):
    r = random.Random(seed)
    ids = lambda n: tuple(r.randint(3, V - 1) for _ in range(n))
    rows = [Row(str(i), ids(p), tuple(map(ids, cs)), (1,) * len(cs)) for i, (p, cs) in enumerate(shape)]
    lm = model()
    with torch.no_grad(): assert shared_nll(lm.net, rows).item() == pytest.approx(padded_nll(lm.net, rows).item(), rel=1e-5)


def test_a_completion_does_not_see_its_neighbours():
    lm, (r,) = model(), [Row("i", (5, 6, 7), ((8, 9), (10, 11, 12)), (1, 1))]
    alone = [shared_nll(lm.net, [Row("i", r.prompt, (c,), (1,))]).item() for c in r.completions]
    assert shared_nll(lm.net, [r]).item() == pytest.approx(sum(alone), rel=1e-6)


def test_models_that_cannot_share_are_trained_the_plain_way():
    rows = [Row("i", tuple(range(3, 15)), ((20, 21, 22), (23, 24)), (1, 1))]
    assert choose_nll(model("window"), rows) is padded_nll
    short = Row("s", (3,), ((4, 5), (6,)), (1, 1))  # within the window of 4; the longer row is not
    assert choose_nll(model("window"), [short]) is shared_nll and choose_nll(model("window"), [short, *rows]) is padded_nll
    assert [choose_nll(model(k), rows) for k in ("llama", "gpt2", "opt", "t5")] == [shared_nll] * 3 + [encoded_nll]


def test_the_models_own_attention_comes_back():
    lm = model()
    before = lm.net.config._attn_implementation
    with torch.no_grad(): shared_nll(lm.net, random_rows())
    assert lm.net.config._attn_implementation == before


# ---- the order

@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(1, 9), st.integers(1, 4), st.sampled_from(["instance", "chain"]),
       st.integers(0, 5))
def test_steps_are_one_endless_stream_of_epochs(counts, batch, visit, balancing, seed):
    recipe = Recipe(batch=batch, chains_per_visit=visit, balancing=balancing, seed=seed)
    stream = [p for s in range(12) for p in batch_at(counts, recipe, s)]
    epochs = [p for e in range(12 * batch) for p in epoch_order(counts, recipe, e)]
    assert stream == epochs[: len(stream)]
    first = epoch_order(counts, recipe, 0)
    if balancing == "chain": assert sorted(first) == [(i, j) for i, n in enumerate(counts) for j in range(n)]
    else:
        assert sorted(i for i, _ in first) == [i for i, n in enumerate(counts) for _ in range(min(n,
                visit))] and len(set(first)) == len(first)


def test_chains_of_an_instance_are_drawn_evenly():
    pairs = [p for e in range(3000) for p in epoch_order([1, 3], Recipe(), e)]
    share = [sum(p == (1, j) for p in pairs) / 3000 for j in range(3)]
    assert max(abs(s - 1 / 3) for s in share) < 0.04


@pytest.mark.parametrize("schedule", ["linear", "constant", "cosine"])
def test_schedules_are_those_of_transformers(schedule):
    recipe = Recipe(steps=20, warmup=5, lr=0.5, schedule=schedule)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    name = {"constant": "constant_with_warmup"}.get(schedule, schedule)
    theirs = transformers.get_scheduler(name, optimiser, num_warmup_steps=5, num_training_steps=20)
    for step in range(20):
        assert lr_at(recipe, step) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        theirs.step()


def test_presets():
    assert (SCOTD.steps, SCOTD.batch, SCOTD.lr, SCOTD.eps, SCOTD.warmup, SCOTD.weight_decay) == (20_000, 32, 2e-5, 1e-5, 500, 0.0)
    assert ho_recipe(100, epochs=3, seed=2) == Recipe(steps=38, batch=8, lr=3e-4, weight_decay=0.01, schedule="constant", clip=0.0,
                                                      max_prompt_tok=512,
                                                      max_completion_tok=512, truncate="cut", balancing="chain", seed=2)
    with pytest.raises(ValueError, match="learning_rate"): Recipe(learning_rate=1.0)
    with pytest.raises(ValueError, match="frozen"): Recipe().steps = 3


# ---- one step is the recipe's step

def test_a_step_is_a_plain_adamw_step_on_the_mean_over_the_global_batch(tmp_path):
    data, recipe = examples(n=3), Recipe(steps=3, batch=5, lr=1e-2, weight_decay=0.1, warmup=1, clip=0.5, chains_per_visit=2)
    train(model(), data, recipe, tmp_path, eos=True, budget_tok=30)
    lm = model()
    rows = tokenise(lm, data, recipe, True)[0]
    optimiser = torch.optim.AdamW(lm.net.parameters(), lr=1.0, weight_decay=0.1)
    losses = []
    for step in range(3):
        chosen = step_rows(rows, batch_at([len(r.completions) for r in rows], recipe, step))
        loss = library_nll(lm, chosen) / sum(len(c) * w for r in chosen for c, w in zip(r.completions, r.weights))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lm.net.parameters(), 0.5)
        for g in optimiser.param_groups: g["lr"] = lr_at(recipe, step)
        optimiser.step()
        losses.append(loss.item())
    assert read_record(tmp_path)["losses"] == pytest.approx(losses, rel=1e-5)
    ours = load(tmp_path).net.state_dict()
    for k, v in lm.net.state_dict().items(): torch.testing.assert_close(ours[k], v, rtol=1e-3, atol=1e-5)


def test_record_counts(tmp_path):
    data = [Example("a", "w3 w4", ("w5 w6 w7",)), Example("b", "w8", ("w9", "w10 w11"))]
    train(model(), data, Recipe(steps=4, batch=2), tmp_path, eos=True)
    r = read_record(tmp_path)
    assert (r["n_instances"], r["n_completions"], r["n_cut"], r["n_completions_seen"], r["chosen_step"], r["form"]) == (2, 3, 0, 8, 4,
            "shared_nll")
    assert len(r["losses"]) == 4 and r["n_label_tok"] <= r["n_computed_tok"]
    assert 4 * (4 + 2) <= r["n_label_tok"] <= 4 * (4 + 3)  # each step: a's 3 + EOS, and one of b's with EOS


@pytest.mark.parametrize("kind", ["gpt2", "opt", "t5", "window"])
def test_other_classes_train_and_load(kind, tmp_path):
    train(model(kind), examples(), Recipe(steps=6, batch=4, lr=1e-2), tmp_path, eos=True)
    losses = read_record(tmp_path)["losses"]
    assert losses[-1] < losses[0]
    assert load(tmp_path).kind == ("encoder_decoder" if kind == "t5" else "decoder")


# ---- limits

def test_prompts_are_never_cut():
    with pytest.raises(ValueError, match=r"'long' has 5 tokens, the limit is 4"):
        tokenise(model(), [Example("long", "w3 w4 w5 w6 w7", ("w8",))], Recipe(max_prompt_tok=4, truncate="cut"), eos=True)
    with pytest.raises(ValueError, match=r"130 tokens, 'llama' has 128 positions"):
        tokenise(model(), [Example("long", text([5] * 100), (text([6] * 30),))], Recipe(), eos=False)


def test_completions_over_the_limit_follow_the_recipe():
    data, lm = [Example("a", "w3", ("w4 w5 w6", "w7")), Example("b", "w3", ("w4 w5 w6 w7",))], model()
    with pytest.raises(ValueError, match=r"'a' has 4 tokens, the limit is 3"): tokenise(lm, data, Recipe(max_completion_tok=3), True)
    rows, n = tokenise(lm, data, Recipe(max_completion_tok=3, truncate="cut"), True)
    assert rows[0].completions == ((4, 5, 6), (7, 1)) and (n["n_cut"], n["n_dropped"], n["n_completions"]) == (2, 0, 3)
    rows, n = tokenise(lm, data, Recipe(max_completion_tok=3, truncate="drop"), True)
    assert [r.completions for r in rows] == [((7, 1),)] and (n["n_dropped"], n["n_instances_dropped"], n["n_instances"]) == (2, 1, 1)
    with pytest.raises(ValueError, match="no completion to train on"):
        tokenise(lm, data[1:], Recipe(max_completion_tok=2, truncate="drop"), True)


# ---- memory

@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(1, 200))
def test_parts_keep_every_completion_once_and_the_budget(seed, budget):
    rows = random_rows(seed)
    parts = parts_of(rows, budget)
    whole = sorted((r.instance, c, w) for r in rows for c, w in zip(r.completions, r.weights))
    assert sorted((r.instance, c, w) for part in parts for r in part for c, w in zip(r.completions, r.weights)) == whole
    for part in parts: assert sum(r.n_tok for r in part) <= budget or len(part) == 1 and len(part[0].completions) == 1


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."),
                                   RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_memory_running_out_only_costs_time(error, tmp_path):
    lm, rows = model(), random_rows(most=8)
    calls = []
    def fails_when_large(net, part):
        calls.append(sum(r.n_tok for r in part))
        if calls[-1] > 70: raise error
        return shared_nll(net, part)
    n = sum(len(c) * w for r in rows for c, w in zip(r.completions, r.weights))
    reference = gradient(padded_nll(lm.net, rows) / n, lm.net)
    loss, budget = backward(lm, fails_when_large, rows, 1000)
    assert 35 <= budget <= 70 and max(calls) > 70
    assert distance(torch.cat([p.grad.flatten() for p in lm.net.parameters()]), reference) < 1e-5
    assert loss.item() == pytest.approx((padded_nll(lm.net, rows) / n).item(), rel=1e-5)


def test_memory_that_holds_no_single_completion_is_said_so():
    def never(net, part): raise RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match=r"single completion of 'i\d' \(prompt \d+, completion \d+ tokens\)"):
        backward(model(), never, random_rows(), 1000)


def test_other_errors_are_not_swallowed():
    def broken(net, part): raise RuntimeError("shapes do not match")
    with pytest.raises(RuntimeError, match="shapes"): backward(model(), broken, random_rows(), 1000)
    assert not out_of_memory(ValueError("out of memory"))


def test_memory_failing_inside_a_training_changes_nothing_else(tmp_path, monkeypatch):
    recipe = Recipe(steps=4, batch=8, lr=1e-3, chains_per_visit=4)
    train(model(), examples(), recipe, tmp_path / "calm", eos=True)
    real = torch.nn.functional.cross_entropy
    def tight(logits, *a, **k):
        if len(logits) > 40 and torch.is_grad_enabled(): raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(logits, *a, **k)
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", tight)
    train(model(), examples(), recipe, tmp_path / "tight", eos=True)
    a, b = read_record(tmp_path / "calm"), read_record(tmp_path / "tight")
    assert b["losses"] == pytest.approx(a["losses"], rel=1e-5) and b["budget_tok"] < a["budget_tok"]


# ---- twins

@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "t5"])
def test_twins_add_up_to_the_gradient_of_one_network(kind):
    lm, rows, nll = model(kind), random_rows(5, most=8), encoded_nll if kind == "t5" else shared_nll
    alone, _ = backward(lm, nll, rows, 60)
    reference = torch.cat([p.grad.flatten() for p in lm.net.parameters() if p.grad is not None])
    assert len(parts_of(rows, 60)) > 3
    with Twins(lm.net, 2) as twins: loss, _ = backward(lm, nll, rows, 60, twins=twins)
    assert loss.item() == pytest.approx(alone.item(), rel=1e-6)
    assert distance(torch.cat([p.grad.flatten() for p in lm.net.parameters() if p.grad is not None]), reference) < 1e-6


@pytest.mark.parametrize("budget", [40, 100, 10_000])
def test_every_twin_gets_parts_of_about_the_same_size(budget):
    lm, rows, seen = model(), random_rows(24, most=1), {}
    def watched(net, part):
        seen.setdefault(id(net), []).append(sum(r.n_tok for r in part))
        return shared_nll(net, part)
    longest = max(r.n_tok for r in rows)
    with Twins(lm.net, 2) as twins: _, kept = backward(lm, watched, rows, budget, twins=twins)
    assert kept == budget and sum(map(sum, seen.values())) == sum(r.n_tok for r in rows)
    assert len(seen) == 2 and max(map(max, seen.values())) <= max(budget, longest)
    assert abs(sum(seen[id(twins.nets[0])]) - sum(seen[id(twins.nets[1])])) <= 2 * longest


def test_a_twin_has_the_weights_of_this_moment():
    lm = model()
    with Twins(lm.net, 2) as twins:
        with torch.no_grad():
            for p in lm.net.parameters(): p.add_(torch.randn_like(p) * 0.1)
        a, b = twins.nets
        pairs = list(zip(a.parameters(), b.parameters(), strict=True))
        assert pairs and all(p.data_ptr() == q.data_ptr() and p is not q for p, q in pairs)
        with torch.no_grad(): assert shared_nll(a, random_rows()).item() == shared_nll(b, random_rows()).item()


def test_memory_running_out_in_a_twin_goes_on_one_by_one():
    lm, rows, calls = model(), random_rows(5, most=8), []
    n = sum(len(c) * w for r in rows for c, w in zip(r.completions, r.weights))
    def fails_together(net, part):
        calls.append(threading.current_thread() is threading.main_thread())
        if not calls[-1]: raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return shared_nll(net, part)
    with Twins(lm.net, 2) as twins:
        loss, budget = backward(lm, fails_together, rows, 60, twins=twins)
        assert budget == 60 and loss.item() == pytest.approx((padded_nll(lm.net, rows) / n).item(), rel=1e-5) and False in calls
        calls.clear()
        backward(lm, fails_together, rows, 60, twins=twins)
    assert all(calls)


def test_an_error_in_a_twin_is_not_swallowed():
    def broken(net, part): raise RuntimeError("shapes do not match")
    lm, before = model(), torch.get_num_threads()
    with Twins(lm.net, 2) as twins, pytest.raises(RuntimeError, match="shapes"): backward(lm, broken, random_rows(), 60, twins=twins)
    assert torch.get_num_threads() == before


def test_threads_change_only_the_rounding(tmp_path):
    recipe = Recipe(steps=4, batch=12, lr=1e-3, chains_per_visit=4)
    for name, n in (("one", 1), ("two", 2), ("again", 2)):
        with threads(n): train(model(), examples(), recipe, tmp_path / name, eos=True, budget_tok=40)
    one, two, again = (read_record(tmp_path / k)["losses"] for k in ("one", "two", "again"))
    assert two == again and two == pytest.approx(one, rel=1e-5)


# ---- which weights are kept

def test_the_best_score_counts_and_ties_go_to_the_earliest(tmp_path):
    scores, weights = {2: 0.1, 4: 0.7, 6: 0.7, 7: 0.2}, {}
    def score(lm, step):
        weights[step] = {k: v.clone() for k, v in lm.net.state_dict().items()}
        return scores[step]
    train(model(), examples(), Recipe(steps=7, batch=2, checkpoint="vote", score_every=2), tmp_path, eos=True, score=score)
    r = read_record(tmp_path)
    assert r["scores"] == [[s, v] for s, v in scores.items()] and r["chosen_step"] == 4
    kept = load(tmp_path).net.state_dict()
    assert all(torch.equal(kept[k], v) for k, v in weights[4].items()) and not torch.equal(kept["lm_head.weight"],
            weights[6]["lm_head.weight"])
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith((".", "best", "checkpoint"))) == []


def test_last_ignores_the_score_and_gold_needs_one(tmp_path):
    def never(lm, step): raise AssertionError("asked for a score")
    train(model(), examples(), Recipe(steps=2, batch=2, score_every=1), tmp_path, eos=True, score=never)
    with pytest.raises(ValueError, match="needs score"): train(model(), examples(), Recipe(checkpoint="gold"), tmp_path / "x", eos=True)
    with pytest.raises(ValueError, match="finite"):
        train(model(), examples(), Recipe(steps=1, checkpoint="gold"), tmp_path / "y", eos=True, score=lambda lm, step: float("nan"))


# ---- interruptions

class Stop(Exception): pass


@pytest.mark.parametrize("dropout", [False, True])
def test_resume_is_exact_at_every_step(tmp_path, dropout):
    recipe = Recipe(steps=6, batch=3, lr=1e-2, warmup=2, dropout=dropout, checkpoint="gold", score_every=2)
    score = lambda lm, step: -abs(step - 4)
    make = lambda: model("gpt2", dropout=0.3)
    train(make(), examples(), recipe, tmp_path / "whole", eos=True, score=score)
    for stop in range(1, 7):
        def progress(step, steps, loss):
            if step == stop: raise Stop
        with pytest.raises(Stop):
            train(make(), examples(), recipe, tmp_path / str(stop), eos=True, score=score, progress=progress, checkpoint_s=0)
        train(make(), examples(), recipe, tmp_path / str(stop), eos=True, score=score)
        assert (tmp_path / str(stop) / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
        a, b = read_record(tmp_path / "whole"), read_record(tmp_path / str(stop))
        assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


def test_dropout_only_when_asked(tmp_path):
    losses = []
    for i, recipe in enumerate([Recipe(steps=2, batch=3), Recipe(steps=2, batch=3, dropout=True), Recipe(steps=2, batch=3)]):
        train(model("gpt2", dropout=0.4), examples(), recipe, tmp_path / str(i), eos=True)
        losses.append(read_record(tmp_path / str(i))["losses"])
    assert losses[0] == losses[2] != losses[1]


def test_a_finished_student_is_not_trained_again_and_a_foreign_folder_is_refused(tmp_path):
    recipe = Recipe(steps=2, batch=2)
    train(model(), examples(), recipe, tmp_path, eos=True)
    before = (tmp_path / "train.json").stat().st_mtime_ns
    def never(step, steps, loss): raise AssertionError("trained again")
    assert train(model(), examples(), recipe, tmp_path, eos=True, progress=never) == tmp_path
    assert (tmp_path / "train.json").stat().st_mtime_ns == before
    for other in (lambda: (model(seed=1), examples(), recipe), lambda: (model(), examples(1), recipe), lambda: (model(), examples(),
            Recipe(steps=3, batch=2))):
        with pytest.raises(ValueError, match="finished training of other"): train(*other(), tmp_path, eos=True)
    train(model(seed=1), examples(), recipe, tmp_path, eos=True, resume=False)
    with pytest.raises(FileNotFoundError, match="no finished student"): read_record(tmp_path / "nothing")


def test_fingerprint_sees_tokens_weights_and_recipe():
    lm, recipe = model(), Recipe()
    rows = tokenise(lm, examples(), recipe, True)[0]
    names = {fingerprint(lm, rows, recipe), fingerprint(model(seed=1), rows, recipe), fingerprint(lm, rows[1:], recipe), fingerprint(lm,
            rows, Recipe(seed=1)),
             fingerprint(lm, tokenise(lm, examples(), recipe, False)[0], recipe)}
    assert len(names) == 5 and fingerprint(model(), rows, recipe) in names


# ---- whose folder

def test_files_that_no_training_wrote_are_left_alone(tmp_path):
    (tmp_path / "thesis.docx").write_bytes(b"years")
    for resume in (True, False):
        with pytest.raises(ValueError, match="holds thesis.docx, which no training wrote"):
            train(model(), examples(), Recipe(steps=1, batch=2), tmp_path, eos=True, resume=resume)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"]
    (tmp_path / "train.json").write_text('{"lines": "TGV"}')  # a file of that name, not of that kind
    for resume in (True, False):
        with pytest.raises(ValueError, match="no record of a training"):
            train(model(), examples(), Recipe(steps=1, batch=2), tmp_path, eos=True, resume=resume)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"): train(model(), examples(), Recipe(steps=1, batch=2), tmp_path / "file", eos=True)


def test_the_first_weights_are_not_written_over(tmp_path):
    base, recipe = model().save(tmp_path / "base"), Recipe(steps=2, batch=2)
    before = (base / "model.safetensors").read_bytes()
    for resume in (True, False):
        with pytest.raises(ValueError, match="begins with"):
            train(load(base), examples(), recipe, tmp_path / "x/../base", eos=True, resume=resume)
    student = train(load(base), examples(), recipe, tmp_path / "s", eos=True)
    for resume in (True, False):  # nor those of a student that is trained further
        with pytest.raises(ValueError, match="begins with"): train(load(student), examples(1), recipe, student, eos=True, resume=resume)
    assert (base / "model.safetensors").read_bytes() == before


def test_a_training_stopped_before_its_first_checkpoint_holds_nothing_back(tmp_path):
    def stop(step, steps, loss): raise Stop
    with pytest.raises(Stop): train(model(), examples(), Recipe(steps=5, batch=2), tmp_path, eos=True, progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == [".training"]
    (tmp_path / "config.json").write_text("{}")  # killed while the student of that training was put in its place
    train(model(seed=1), examples(), Recipe(steps=2, batch=2), tmp_path, eos=True)
    assert load(tmp_path).kind == "decoder" and not (tmp_path / ".training").exists()


def test_a_damaged_checkpoint_is_said_so(tmp_path):
    def stop(step, steps, loss):
        if step == 2: raise Stop
    with pytest.raises(Stop): train(model(), examples(), Recipe(steps=5, batch=2), tmp_path, eos=True, progress=stop, checkpoint_s=0)
    state = tmp_path / "checkpoint.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ValueError, match="checkpoint.safetensors that is no record"):
        train(model(), examples(), Recipe(steps=5, batch=2), tmp_path, eos=True)


# ---- objectives

def smoothed(net, rows):
    "Half the likelihood, half that of a uniform guess: a toy."
    nll = padded_nll(net, rows)
    return 0.5 * nll + 0.5 * sum(len(c) * w for r in rows for c, w in zip(r.completions, r.weights)) * math.log(V)


class Scaled:
    "An objective with a parameter, which its name says."
    def __init__(self, by): self.by, self.name = by, f"nll times {by}"
    def __call__(self, net, rows): return self.by * shared_nll(net, rows)


def test_an_objective_is_what_is_minimised(tmp_path):
    recipe = Recipe(steps=4, batch=6, lr=1e-2, clip=0.0, chains_per_visit=2)
    for name, objective in dict(none=None, toy=smoothed, one=Scaled(1), five=Scaled(5)).items():
        train(model(), examples(), recipe, tmp_path / name, eos=True, objective=objective, budget_tok=60)
    none, toy, one, five = (read_record(tmp_path / k) for k in ("none", "toy", "one", "five"))
    assert len({r["fingerprint"] for r in (none, toy, one, five)}) == 4
    assert (none["form"], toy["form"], one["form"]) == ("shared_nll", "smoothed", "nll times 1")
    assert one["losses"] == none["losses"] and five["losses"][0] == pytest.approx(5 * none["losses"][0], rel=1e-6)
    assert toy["losses"][0] == pytest.approx(0.5 * none["losses"][0] + 0.5 * math.log(V), rel=1e-5)
    assert (tmp_path / "one/model.safetensors").read_bytes() == (tmp_path / "none/model.safetensors").read_bytes()


def test_an_objective_needs_a_name_and_a_folder_of_its_own(tmp_path):
    recipe = Recipe(steps=1, batch=2)
    with pytest.raises(ValueError, match="has no name"):
        train(model(), examples(), recipe, tmp_path, eos=True, objective=lambda net, rows: shared_nll(net, rows))
    train(model(), examples(), recipe, tmp_path, eos=True)
    with pytest.raises(ValueError, match="finished training of other"):
        train(model(), examples(), recipe, tmp_path, eos=True, objective=Scaled(2))
    rows = tokenise(model(), examples(), recipe, True)[0]
    assert fingerprint(model(), rows, recipe) == fingerprint(model(), rows, recipe, "") != fingerprint(model(), rows, recipe, "nll times 2")


# ---- the trial

def leaky(net, rows):
    "Right for any one row, wrong as soon as two different rows are computed together."
    return shared_nll(net, rows) * (1 if len(rows) == 1 else 1.01)


@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_form_that_leaks_between_rows_is_not_taken(n, monkeypatch):
    rows = [Row(f"i{k}", tuple(range(3, 5 + k)), (tuple(range(20, 23 + k % 7)),), (1,)) for k in range(n)]
    assert choose_nll(model(), rows) is shared_nll
    monkeypatch.setattr(students, "shared_nll", leaky)
    assert choose_nll(model(), rows) is padded_nll
    monkeypatch.setattr(students, "padded_nll", leaky)
    assert choose_nll(model(), rows) is single_nll


@pytest.mark.parametrize("error", [RuntimeError("sizes"), KeyError("x"), IndexError("x"), NotImplementedError(), AssertionError(),
                                   torch.OutOfMemoryError("CUDA out of memory.")])
def test_whatever_a_form_raises_is_a_refusal(error, monkeypatch):
    def refuses(net, rows): raise error
    monkeypatch.setattr(students, "shared_nll", refuses)
    lm = model()
    assert choose_nll(lm, random_rows()) is padded_nll and lm.net.config._attn_implementation != "cotstudy_rows"


def test_the_trial_leaves_no_trace():
    lm, state = model("gpt2", dropout=0.3), torch.random.get_rng_state()
    before = {k: v.clone() for k, v in lm.net.state_dict().items()}
    choose_nll(lm, random_rows())
    assert all(torch.equal(v, before[k]) for k, v in lm.net.state_dict().items()) and all(p.grad is None for p in lm.net.parameters())
    assert torch.equal(torch.random.get_rng_state(), state) and not lm.net.training


def kill_recipe(): return Recipe(steps=60, batch=8, lr=1e-2, warmup=5, chains_per_visit=2, checkpoint="gold", score_every=10)


def kill_score(lm, step): return -abs(step - 40)


def forever_killed(folder):
    torch.set_num_threads(1)
    train(model(), examples(n=8), kill_recipe(), folder, eos=True, score=kill_score, checkpoint_s=0.0)


def test_kill_nine_at_random_moments_ends_in_the_same_weights(tmp_path):
    train(model(), examples(n=8), kill_recipe(), tmp_path / "whole", eos=True, score=kill_score)
    r, killed = random.Random(os.getpid()), 0
    for attempt in range(25):
        child = multiprocessing.get_context("fork").Process(target=forever_killed, args=(tmp_path / "torn",))
        child.start()
        time.sleep(r.uniform(0.02, 0.3))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        if (tmp_path / "torn/train.json").exists(): break
    assert killed
    train(model(), examples(n=8), kill_recipe(), tmp_path / "torn", eos=True, score=kill_score)
    assert (tmp_path / "torn/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    a, b = (json.loads((tmp_path / d / "train.json").read_text()) for d in ("whole", "torn"))
    assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}
    assert sorted(p.name for p in (tmp_path / "torn").iterdir()) == sorted(p.name for p in (tmp_path / "whole").iterdir())


# ---- large students

@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "t5"])
def test_adapters_are_trained_in_place_of_the_weights_and_merged(kind, tmp_path):
    first, lm, recipe = model(kind).net.state_dict(), model(kind), Recipe(steps=6, batch=4, lr=1e-2, lora_rank=2)
    said, ends = [], []
    def watch(step, steps, loss): said.append({k: p.detach().clone() for k, p in lm.net.named_parameters()})
    def score(lm, step): return ends.append(library_nll(lm, random_rows()).item()) or 1.0
    folder = train(lm, examples(), recipe.model_copy(update=dict(checkpoint="gold")), tmp_path / "s", eos=True, score=score, progress=watch)
    base = {k.replace(".base_layer", ""): v for k, v in said[-1].items() if "lora_" not in k}
    assert all(torch.equal(first[k], v) for k, v in base.items()), "the weights themselves stay while adapters are trained"
    assert sum(v.numel() for k, v in said[-1].items() if "lora_" in k) == read_record(folder)["n_trained"] < lm.n_params / 2
    student = load(folder)
    assert type(student.net) is type(lm.net) and set(student.net.state_dict()) == set(first), "an ordinary folder"
    assert all(p.requires_grad for p in lm.net.parameters())
    moved = {k for k, v in student.net.state_dict().items() if not torch.equal(v, first[k])}
    assert moved and not any("embed" in k or "norm" in k or "ln_" in k for k in moved)
    assert library_nll(student, random_rows()).item() == pytest.approx(ends[-1], rel=1e-5), "merged, it says what it said with adapters"
    assert not read_record(folder)["losses"][-1] > read_record(folder)["losses"][0]


def test_adapters_resume_and_have_a_name_of_their_own(tmp_path):
    recipe = Recipe(steps=8, batch=4, lr=1e-2, lora_rank=2, seed=3)
    whole = train(model(), examples(), recipe, tmp_path / "whole", eos=True)
    for cut in (2, 5):
        torn = tmp_path / f"torn{cut}"
        def stop(step, steps, loss, cut=cut):
            if step == cut: raise KeyboardInterrupt
        with pytest.raises(KeyboardInterrupt): train(model(), examples(), recipe, torn, eos=True, progress=stop, checkpoint_s=0.0)
        assert (torn / "checkpoint.safetensors").stat().st_size < (whole / "model.safetensors").stat().st_size
        train(model(), examples(), recipe, torn, eos=True)
        assert (torn / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    lm = model()
    rows, _ = tokenise(lm, examples(), recipe, True)
    changes = (dict(lora_rank=0), dict(lora_rank=3), dict(lora_alpha=9.0), dict(seed=4))
    assert len({fingerprint(lm, rows, recipe.model_copy(update=c)) for c in ({}, *changes)}) == 5
    other = train(model(), examples(), recipe.model_copy(update=dict(seed=4)), tmp_path / "other", eos=True)
    assert (other / "model.safetensors").read_bytes() != (whole / "model.safetensors").read_bytes()


def test_adapters_without_the_library_are_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr(students, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"cotstudy\[peft\]"):
        train(model(), examples(), Recipe(steps=1, lora_rank=2), tmp_path / "s", eos=True)


@pytest.mark.parametrize("kind, lora, dropout", [("llama", 0, False), ("gpt2", 0, True), ("opt", 2, False), ("t5", 0, False)])
def test_computing_twice_is_the_same_student(kind, lora, dropout, tmp_path):
    def made(name, twice):
        recipe = Recipe(steps=4, batch=6, chains_per_visit=2, gradient_checkpointing=twice, lora_rank=lora, dropout=dropout)
        lm = model(kind, dropout=0.1 if dropout else 0.0)
        folder = train(lm, examples(), recipe, tmp_path / name, eos=True)
        assert not any("forward" in vars(m) for m in lm.net.modules()), "layers are left as they were"
        return (folder / "model.safetensors").read_bytes(), read_record(folder)
    (a, once), (b, twice) = made("once", False), made("twice", True)
    assert a == b and once["losses"] == twice["losses"] and once["form"] == twice["form"] != "single_nll"


def test_computing_twice_really_computes_twice():
    lm, rows, seen = model("llama"), random_rows(), []
    layer = lm.net.model.layers[0].mlp
    layer.register_forward_pre_hook(lambda *_: seen.append(1))  # the second pass ends where nothing more is needed
    for twice, n in ((False, 1), (True, 2)):
        seen.clear()
        with students.recomputed(lm.net, Recipe(gradient_checkpointing=twice)): shared_nll(lm.net, rows).backward()
        assert len(seen) == n
    with pytest.raises(ValueError, match="gradient_checkpointing"):
        with students.recomputed(torch.nn.Linear(2, 2), Recipe(gradient_checkpointing=True)): pass


def test_weights_are_held_in_bfloat16_on_a_gpu_only(tmp_path, monkeypatch):
    recipe, lm = Recipe(steps=3, batch=4, weight_dtype="bfloat16"), model()
    folder = train(lm, examples(), recipe, tmp_path / "cpu", eos=True)
    assert lm.dtype == read_record(folder)["weight_dtype"] == "float32"
    card = SimpleNamespace(type="cuda")
    net = SimpleNamespace(device=card, to=lambda dtype: seen.append(dtype))
    seen = []
    for plan in (recipe, Recipe()): students.hold(SimpleNamespace(net=net, dtype="?"), plan)
    assert seen == [torch.bfloat16]
    monkeypatch.setattr(students, "hold", lambda lm, recipe: lm.net.to(torch.bfloat16))  # what a GPU would hold, computed here
    half = train(model(), examples(), recipe.model_copy(update=dict(lora_rank=2, lr=1e-2)), tmp_path / "half", eos=True)
    assert read_record(half)["weight_dtype"] == "bfloat16" and load(half).net.state_dict().keys() == model().net.state_dict().keys()
    assert read_record(half)["memory"]["weights"] < 0.7 * read_record(folder)["memory"]["weights"]


# ---- memory

def kept_bytes(net, nll, rows):
    "What a forward pass keeps for the way back, beside the weights."
    sizes, alive, own = {}, [], {p.untyped_storage().data_ptr() for p in net.parameters()}
    def pack(x):
        alive.append(x)  # an address is not given twice while its tensor lives
        sizes[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x): nll(net, rows)
    return sum(n for at, n in sizes.items() if at not in own)


def wide_net(kind, layers=6, d=128, vocab=300):
    if kind == "llama": return LlamaForCausalLM(LlamaConfig(vocab_size=vocab, hidden_size=d, intermediate_size=4 * d, num_attention_heads=4,
                                                            num_hidden_layers=layers))
    if kind == "gpt2": return GPT2LMHeadModel(GPT2Config(vocab_size=vocab, n_embd=d, n_layer=layers, n_head=4, eos_token_id=1,
                                                         bos_token_id=1))
    if kind == "opt": return OPTForCausalLM(OPTConfig(vocab_size=vocab, hidden_size=d, ffn_dim=4 * d, num_hidden_layers=layers,
                                                      num_attention_heads=4, word_embed_proj_dim=d))
    return T5ForConditionalGeneration(T5Config(vocab_size=vocab, d_model=d, d_kv=32, d_ff=4 * d, num_layers=layers, num_heads=4,
                                               decoder_start_token_id=0))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "t5"])
@pytest.mark.parametrize("twice", [False, True])
def test_the_estimate_of_activations_is_near_what_is_kept(kind, twice):
    net, recipe = wide_net(kind).eval(), Recipe(gradient_checkpointing=twice)
    rows = [Row(str(k), tuple(range(3, 120)), (tuple(range(3, 100)),), (1,)) for k in range(4)]
    n_tok = sum(r.n_tok for r in rows)
    told = memory_of(shape_of(net.config.to_dict()), n_tok, recipe, 0, 0).activations
    with students.recomputed(net, recipe): found = kept_bytes(net, encoded_nll if kind == "t5" else shared_nll, rows)
    if not twice: assert 0.5 < told / found < 2.4, (told, found)
    else: assert found < told < kept_bytes(net, encoded_nll if kind == "t5" else shared_nll, rows) * 2, (told, found)


def test_a_training_that_cannot_fit_is_refused_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(students, "room_of", lambda device: 300_000)
    with pytest.raises(ValueError, match=r"takes about .* GB \(weights .*moments.*cpu has 0\.00 GB.*lora_rank"):
        train(model(), examples(), Recipe(steps=2), tmp_path / "s", eos=True)
    assert not (tmp_path / "s/checkpoint.safetensors").exists()
    monkeypatch.setattr(students, "room_of", lambda device: None)  # nobody knows: it is tried
    record = read_record(train(model(), examples(), Recipe(steps=2), tmp_path / "s", eos=True))
    n = sum(p.numel() for p in model().net.parameters())
    assert record["memory"] | dict(activations=0) == dict(weights=4 * n, gradients=4 * n, moments=8 * n, activations=0)


# ---- several processes

def one_of_two(rank, folder, recipe):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}.meet", rank=rank, world_size=2)
    train(model(), examples(), recipe, folder, eos=True, score=(lambda lm, step: -step) if rank == 0 else "never called")
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("visit", [1, 4])
def test_two_processes_train_the_student_of_one(tmp_path, visit):
    recipe = Recipe(steps=5, batch=8, lr=1e-3, clip=0.5, chains_per_visit=visit, checkpoint="gold", score_every=3)
    train(model(), examples(), recipe, tmp_path / "one", eos=True, score=lambda lm, step: -step)
    both = [multiprocessing.get_context("fork").Process(target=one_of_two, args=(rank, tmp_path / "two", recipe)) for rank in range(2)]
    for p in both: p.start()
    for p in both: p.join(120)
    assert [p.exitcode for p in both] == [0, 0]
    a, b = read_record(tmp_path / "one"), read_record(tmp_path / "two")
    assert b["losses"] == pytest.approx(a["losses"],
                                        rel=1e-5) and a["chosen_step"] == b["chosen_step"] == 3 and a["fingerprint"] == b["fingerprint"]
    one, two = (load(tmp_path / d).net.state_dict() for d in ("one", "two"))
    for k, v in one.items(): torch.testing.assert_close(two[k], v, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lora", [0, 4])
def test_accelerate_launch_trains_the_student_of_one_process(tmp_path, lora):
    corpus = [dict(instance=e.instance, question=e.prompt, rationale=c, answer="5", gold="5", draw_index=k)
              for e in examples(n=6) for k, c in enumerate(e.completions)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in corpus), "utf-8")
    def made(out, *launch):
        how = f"distil --corpus corpus.jsonl --student scratch/0.1m --out {out} --steps 4 --batch 8 --lora-rank {lora} --json"
        done = subprocess.run([*launch, str(BIN / "cotstudy"), *how.split()], cwd=tmp_path, capture_output=True, text=True, timeout=300,
                              env=os.environ | dict(OMP_NUM_THREADS="1"))
        assert done.returncode == 0, done.stderr[-2000:]
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    (one,) = made("one")
    launch = "launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --no_python"
    two = made("two", str(BIN / "accelerate"), *launch.split())
    assert len(two) == 1, "the first process speaks"
    assert two[0]["last_loss"] == pytest.approx(one["last_loss"], rel=1e-5)
    a, b = (read_record(tmp_path / d) for d in ("one", "two"))
    assert b["losses"] == pytest.approx(a["losses"], rel=1e-5) and a["fingerprint"] == b["fingerprint"] and a["recipe"] == b["recipe"]
    old, new = (load(tmp_path / d).net.state_dict() for d in ("one", "two"))
    for k, v in old.items(): torch.testing.assert_close(new[k], v, rtol=1e-3, atol=1e-5)
