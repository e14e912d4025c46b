"""Draws are exact, repeatable and equal to what `transformers` itself would do."""
import json
import os
import shutil
import signal
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models as kinds, normalizers, pre_tokenizers, processors, trainers
from transformers import (Gemma3Config, Gemma3ForConditionalGeneration, GenerationConfig, GPT2Config, GPT2LMHeadModel, GPTNeoXConfig,
                          GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, T5Config,
                          T5ForConditionalGeneration,
                          BloomConfig, BloomForCausalLM)

from cotstudy import folders, sampling
from cotstudy.decoding import Decoding, Request, choose, distribution, draw_key, invert, prompt_id, special_in, uniforms
from cotstudy.filters import encoder
from cotstudy.models import folder_id, folder_stamp, load, pocket_models, scratch, threads
from cotstudy.recorded import Recorded
from cotstudy.sampling import LM, divergence, logprobs, shares_prefixes

torch.set_num_threads(1)
TEXTS = ["Q: Ann has 3 pens. Ann buys 2 more. How many pens does Ann have now?\nA: Let's think step by step.",
         " Ann has 3 + 2 = 5 pens. So the answer is: 5", "Q: Bob had 9 apples and ate 4.\nA:",
         "One. Two! Three? Yes; no: maybe, \"perhaps\"."]
SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4)


def make_tokenizer(bos: bool = False, eos_last: bool = False) -> PreTrainedTokenizerFast:
    tok = Tokenizer(kinds.BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tok.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=320, special_tokens=["<pad>", "<eos>", "<bos>"], show_progress=False,
                                                       initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if bos: tok.post_processor = processors.TemplateProcessing("<bos> $A", special_tokens=[("<bos>", 2)])
    if eos_last: tok.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tok, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")


TOKENIZER = make_tokenizer()
V = len(TOKENIZER)
COMMON = dict(vocab_size=V, pad_token_id=0, eos_token_id=1, bos_token_id=2)
NETS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(intermediate_size=64, num_key_value_heads=2, **SMALL, **COMMON)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512, **COMMON)),
    "opt": lambda: OPTForCausalLM(OPTConfig(ffn_dim=64, word_embed_proj_dim=32, max_position_embeddings=512, **SMALL, **COMMON)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(intermediate_size=64, num_key_value_heads=1, **SMALL, **COMMON)),
    "neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(intermediate_size=64, **SMALL, **COMMON)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(intermediate_size=64, num_key_value_heads=2, sliding_window=16, **SMALL, **COMMON)),
    "bloom": lambda: BloomForCausalLM(BloomConfig(n_layer=2, n_head=4, **{"hidden_size": 32}, **COMMON)),
    "t5": lambda: T5ForConditionalGeneration(T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, decoder_start_token_id=0,
                                                      **COMMON)),
}
FAST = {"llama", "gpt2", "opt", "qwen2", "neox"}  # drawn with shared prefixes; the others in waves


def make_lm(name: str, sharp: float = 6.0) -> LM:
    "Random weights, made so decided that greedy decoding has no ties, and with an EOS that comes after about 12 tokens."
    torch.manual_seed(1)
    net = NETS[name]().eval()
    with torch.no_grad():
        for p in net.parameters():
            if p.dim() > 1: p.mul_(3)
        head = net.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.clone())
        head.bias = torch.nn.Parameter(torch.zeros(V))
        ids = torch.tensor([TOKENIZER(TEXTS[0])["input_ids"]])
        out = net(input_ids=ids, **({"decoder_input_ids": ids} if net.config.is_encoder_decoder else {})).logits
        head.weight.mul_(sharp / out.std())
        head.bias[1] = 2 * sharp
    return LM(net, make_tokenizer(eos_last=True) if name == "t5" else TOKENIZER, name, name)


@pytest.fixture(scope="module", params=list(NETS))
def lm(request): return make_lm(request.param)


@pytest.fixture(scope="module")
def llama(): return make_lm("llama")


PROMPTS = [TEXTS[0], "Q: Ann", TEXTS[2], "A", TEXTS[0][:40]]


def run(lm, requests, decoding, rows=None):
    return {(c.prompt, c.draw_index): c for part in lm.complete(requests, decoding, rows) for c in part}


def generate(lm, prompt, n):
    ids = torch.tensor([lm.prompt_ids(prompt)])
    out = lm.net.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n)[0]
    return out[1 if lm.kind == "encoder_decoder" else ids.shape[1]:].tolist()


def test_greedy_equals_generate_token_for_token(lm):
    got = run(lm, [Request(p) for p in PROMPTS], Decoding(max_tok=24))
    assert (set(v for k, v in lm.tried.items() if isinstance(k, int)) == {"shared"}) == shares_prefixes(lm) == (lm.name in FAST)
    for p in PROMPTS: assert got[p, 0].token_ids.tolist() == generate(lm, p, 24), p
    assert len({len(c.token_ids) for c in got.values()}) > 1 or lm.name in ("mistral", "bloom", "t5")


def test_log_probabilities_are_those_of_a_plain_forward_pass(lm):
    got = run(lm, [Request(p, (0, 1, 2)) for p in PROMPTS], Decoding(temperature=0.7, top_p=0.9, max_tok=20))
    for p in PROMPTS:
        mine = [got[p, i] for i in range(3)]
        for c, plain in zip(mine, logprobs(lm, p, [c.token_ids for c in mine])): np.testing.assert_allclose(c.logprobs, plain, atol=2e-4)
        one = logprobs(lm, p, [mine[0].token_ids])[0]
        ids = torch.tensor([lm.prompt_ids(p)])
        tail = torch.tensor([mine[0].token_ids.tolist()])
        with torch.no_grad():
            if lm.kind == "decoder": logits = lm.net(input_ids=torch.cat([ids, tail], 1)).logits[0, ids.shape[1] - 1: -1]
            else: logits = lm.net(input_ids=ids, labels=tail).logits[0]
        np.testing.assert_allclose(one, logits.log_softmax(-1).gather(1, tail[0][:, None])[:, 0], atol=2e-4)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_a_draw_does_not_depend_on_batch_or_order(name):
    lm, hot = make_lm(name, sharp=2.0), Decoding(temperature=1.0, max_tok=20)
    n = 30 if name == "llama" else 6
    asked = [Request(p, tuple(range(n))) for p in PROMPTS]
    first = run(lm, asked, hot, 64)
    assert len({c.text for c in first.values()}) > len(first) / 2  # they are different draws
    mixed = [Request(r.prompt, r.draw_indices[a::2][::-1]) for r in asked[::-1] for a in (0, 1)]
    n_same = n_all = 0
    for again in (run(lm, mixed, hot, 17), run(lm, asked, hot, 512), run(lm, [Request(PROMPTS[1], (5, 3))], hot, 1)):
        for key, c in again.items():
            n_all += 1
            parted = divergence(lm, c, first[key], hot)
            n_same += parted is None
            assert parted is None or parted[1] < 1e-4
            if parted is None: assert c.text == first[key].text and c.finish == first[key].finish
    assert n_all - n_same <= max(1, 0.001 * n_all)


def test_all_ways_make_the_same_draws(llama, monkeypatch):
    hot, asked = Decoding(temperature=1.0, max_tok=30, stop=("e",)), [Request(p, tuple(range(9))) for p in PROMPTS]
    shared = run(llama, asked, hot, 20)
    for way in ("padded", "level", "single", "whole"):
        monkeypatch.setattr(sampling, "way_of", lambda *a: way)
        for key, c in run(llama, asked[: 5 if way == "padded" else 2], hot, 20).items():
            assert (c.text, c.finish, c.n_tok) == (shared[key].text, shared[key].finish, shared[key].n_tok)


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_sampled_tokens_follow_the_exact_distribution(name):
    lm, n = make_lm(name, sharp=1.5), 1500
    for how in (Decoding(temperature=1.0, max_tok=1), Decoding(temperature=0.7, top_k=20, top_p=0.8, max_tok=1)):
        got = run(lm, [Request(TEXTS[0], tuple(range(n)))], how)
        ids = torch.tensor([lm.prompt_ids(TEXTS[0])])
        with torch.no_grad():
            extra = {"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if lm.kind == "encoder_decoder" else {}
            p = torch.softmax(lm.net(input_ids=ids, **extra).logits[0, -1].double() / how.temperature, -1).numpy()
        if how.top_k:  # by hand: the 20 best, then the fewest of them that reach 0.8 of their mass
            best = np.argsort(-p, kind="stable")[:20]
            best = best[: int(np.searchsorted(np.cumsum(p[best]) / p[best].sum(), 0.8) + 1)]
            p = np.where(np.isin(np.arange(len(p)), best), p, 0)
        p = p / p.sum()
        seen = np.bincount([c.token_ids[0] for c in got.values()], minlength=len(p))
        assert not seen[p == 0].any()
        common = p * n >= 5
        rare_seen, rare = seen[~common].sum(), p[~common].sum()
        chi = ((seen - n * p)[common] ** 2 / (n * p)[common]).sum()
        chi += (rare_seen - n * rare) ** 2 / max(n * rare, 1e-9) * (rare > 1e-3)
        dof = common.sum()
        assert chi < dof + 4 * np.sqrt(2 * dof), (chi, dof)


def test_left_padding_does_not_change_a_draw(lm):
    how = Decoding(temperature=1.0, max_tok=15)
    alone = run(lm, [Request("A", (0, 1, 2))], how)
    beside = run(lm, [Request(p, (0, 1, 2)) for p in PROMPTS], how)
    for key, c in alone.items(): assert beside[key].token_ids.tolist() == c.token_ids.tolist()


def test_stop_texts_eos_and_length(llama):
    free = run(llama, [Request(p, tuple(range(8))) for p in PROMPTS], Decoding(temperature=1.0, max_tok=40))
    assert {c.finish for c in free.values()} == {"stop", "length"}
    for c in free.values():
        assert (c.finish == "stop") == (c.token_ids[-1] == 1) and c.n_tok == len(c.token_ids) == len(c.logprobs) <= 40
        assert c.text == TOKENIZER.decode([i for i in c.token_ids.tolist() if i > 2])
    stops = ("en", "a")
    cut = run(llama, [Request(p, tuple(range(8))) for p in PROMPTS], Decoding(temperature=1.0, max_tok=40, stop=stops))
    n_cut = 0
    for key, c in cut.items():
        full = free[key]
        n = c.n_tok  # the stop text does not move the random stream: the tokens are a prefix of the free draw
        assert c.token_ids.tolist() == full.token_ids[:n].tolist()
        at = min((i for s in stops if (i := full.text.find(s)) >= 0), default=None)
        assert c.text == (full.text if at is None else full.text[:at])
        if at is not None:
            n_cut += 1
            assert c.finish == "stop" and not any(s in llama.decode(c.token_ids[:-1]) for s in stops)
    assert n_cut > 3


def test_stop_text_of_characters_made_of_several_tokens(llama):
    "An é is two byte tokens here; the stop text ends in the middle of nothing."
    ids = np.array(TOKENIZER("ab é cd")["input_ids"], np.int32)
    how = Decoding(stop=("é",))
    places = sampling._Places(llama, how, 1)
    hit = []
    for n in range(1, len(ids) + 1):
        hit.append(bool(places.may_stop[ids[n - 1]]) and places.stopped(ids[:n]))
    assert hit.index(True) == next(n for n in range(len(ids)) if "é" in TOKENIZER.decode(ids[: n + 1].tolist()))


def test_a_length_limit_is_a_view(llama):
    long = run(llama, [Request(TEXTS[0], tuple(range(6)))], Decoding(temperature=1.0, max_tok=300))
    short = run(llama, [Request(TEXTS[0], tuple(range(6)))], Decoding(temperature=1.0, max_tok=5))
    for key, c in short.items(): assert c.token_ids.tolist() == long[key].token_ids[:5].tolist() and c.prompt_id == long[key].prompt_id


def test_each_prompt_is_read_once_and_rows_are_bounded(llama, monkeypatch):
    read, sizes, prefill, step = [], [], sampling._prefill, sampling._step
    monkeypatch.setattr(sampling, "_prefill", lambda lm, prompts, *a: read.extend(prompts) or prefill(lm, prompts, *a))
    monkeypatch.setattr(sampling, "_step", lambda net, cohorts: sizes.append(sum(len(c.rows) for c in cohorts)) or step(net, cohorts))
    got = run(llama, [Request(p, tuple(range(10))) for p in PROMPTS], Decoding(temperature=1.0, max_tok=30), 25)
    assert len(got) == 50 and len(read) == len(set(read)) == 5 and max(sizes) <= 25
    assert [len(p) for p in read] == sorted(map(len, read), reverse=True)


def test_the_same_draw_asked_twice_is_drawn_once_and_given_to_both(llama):
    asked = [Request(TEXTS[2], (0, 1), "a"), Request(TEXTS[2], (1, 2), "b")]
    got = [c for part in llama.complete(asked, Decoding(temperature=1.0, max_tok=5)) for c in part]
    assert sorted((c.instance, c.draw_index) for c in got) == [("a", 0), ("a", 1), ("b", 1), ("b", 2)]
    assert list(llama.complete([], Decoding())) == []


def test_training_attention_is_untouched_by_drawing(llama):
    before = llama.net.config._attn_implementation
    stream = llama.complete([Request(TEXTS[2], (0, 1, 2))], Decoding(temperature=1.0, max_tok=30))
    next(stream)  # in the middle of drawing
    ids = torch.tensor([TOKENIZER(TEXTS[0])["input_ids"]])
    llama.net(input_ids=ids, labels=ids).loss.backward()
    assert llama.net.config._attn_implementation == before and llama.net.model.embed_tokens.weight.grad is not None
    llama.net.zero_grad()
    assert sum(len(part) for part in stream) <= 2


def test_errors_say_what_to_do(llama, tmp_path):
    with pytest.raises(ValueError, match="greedy decoding has only draw 0"): list(llama.complete([Request("A", (0, 1))], Decoding()))
    with pytest.raises(ValueError, match="positions"): list(llama.complete([Request("A")], Decoding(max_tok=5000)))
    with pytest.raises(ValueError, match="no tokens"): list(llama.complete([Request("")], Decoding()))
    with pytest.raises(ValueError, match="no tokens"): logprobs(llama, "A", ["x", ""])
    with pytest.raises(ValueError, match="give a tuple"): Decoding(stop="\n")
    with pytest.raises(ValueError, match="chat template"): llama.as_chat()
    for bad in (dict(temperature=-1), dict(temperature=float("nan")), dict(top_p=0), dict(top_p=1.2), dict(top_k=-1), dict(max_tok=0),
                dict(stop=("",))):
        with pytest.raises(ValueError): Decoding(**bad)
    with pytest.raises(ValueError, match="40 hex"): load("owner/model")
    with pytest.raises(ValueError, match="40 hex"): load("owner/model", revision="main")
    with pytest.raises(ValueError, match="neither"): load("what is this?")
    with pytest.raises(FileNotFoundError, match="no folder"): load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="config.json"): load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="safetensors"): load(tmp_path)
    with pytest.raises(KeyError, match="did you mean 8m"): scratch("8mm", TOKENIZER)


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_save_and_load_keep_the_model_and_its_identity(name, tmp_path):
    lm = make_lm(name)
    lm.net.get_output_embeddings().bias = None  # the formats have no such bias
    lm.save(tmp_path / "a")
    one, two = load(tmp_path / "a"), load(str(tmp_path / "a"))
    assert one.id == two.id == folder_id(tmp_path / "a") and one.kind == lm.kind and one.dtype == "float32"
    how = Decoding(max_tok=10)
    assert [c.text for c in run(one, [Request("A")], how).values()] == [c.text for c in run(lm, [Request("A")], how).values()]
    config = json.loads((tmp_path / "a/config.json").read_text())
    (tmp_path / "a/config.json").write_text(json.dumps(config | {"transformers_version": "0.0"}))
    assert folder_id(tmp_path / "a") == one.id
    (tmp_path / "a/config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert folder_id(tmp_path / "a") != one.id
    with pytest.raises(ValueError, match="dtype"): load(tmp_path / "a", dtype="int8")
    assert load(tmp_path / "a", dtype="bfloat16").dtype == "bfloat16"


def test_half_precision_draws(tmp_path):
    lm = make_lm("llama")
    lm.net.to(torch.bfloat16)
    got = run(lm, [Request(p, (0, 1)) for p in PROMPTS], Decoding(temperature=1.0, max_tok=10))
    assert shares_prefixes(lm) and len(got) == 10 and all(np.isfinite(c.logprobs).all() for c in got.values())


def test_scratch_models_depend_on_size_and_seed_only():
    state = torch.random.get_rng_state()
    a, b, c = scratch("0.1m", TOKENIZER, 3), scratch("0.1m", TOKENIZER, 3), scratch("0.1m", TOKENIZER, 4)
    assert a.id == b.id != c.id and torch.equal(torch.random.get_rng_state(), state)
    assert 0.08e6 < a.n_params < 0.2e6 and 6e6 < scratch("8m", TOKENIZER).n_params < 11e6


def test_prompts_get_the_special_tokens_of_their_tokenizer(llama):
    bos = LM(llama.net, make_tokenizer(bos=True), "bos", "bos")
    assert bos.prompt_ids("A")[0] == 2 and bos.completion_ids("A") == llama.prompt_ids("A") and bos.completion_ids("A", eos=True)[-1] == 1
    closing = make_tokenizer(eos_last=True)
    assert LM(llama.net, closing, "x", "x").prompt_ids("A") == llama.prompt_ids("A")  # a decoder's prompt does not end with EOS
    assert make_lm("t5").prompt_ids("A")[-1] == 1


def test_prompt_id_names_the_distribution_and_not_the_length(llama):
    base = prompt_id(llama, "A", Decoding(temperature=0.7))
    assert len(base) == 32 and base == prompt_id(llama, "A", Decoding(temperature=0.7, max_tok=3))
    others = {prompt_id(llama, p, d) for p, d in [("B", Decoding(temperature=0.7)), ("A", Decoding()), ("A", Decoding(temperature=0.8)),
              ("A", Decoding(temperature=0.7, top_p=0.9)), ("A", Decoding(temperature=0.7, top_k=5)), ("A", Decoding(temperature=0.7,
                      stop=("x",)))]}
    assert len(others) == 6 and base not in others
    assert prompt_id(llama, "A", Decoding()) == prompt_id(llama, "A", Decoding(top_k=5))  # greedy ignores truncation


def test_chat_prompts_are_wrapped_once():
    tok = make_tokenizer(bos=True)
    tok.chat_template = ("{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
                         "{% if add_generation_prompt %}<me>{% endif %}")
    plain = LM(make_lm("llama").net, tok, "c", "c")
    chat = plain.as_chat()
    assert tok.decode(chat.prompt_ids("A"), skip_special_tokens=False) == "<bos><user>A<me>" and chat.id != plain.id and not plain.chat
    assert len(list(chat.complete([Request("A")], Decoding(max_tok=3)))) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=150).filter(any), st.floats(0, 1, exclude_max=True))
def test_inversion_never_picks_the_impossible_and_walks_in_order(weights, u):
    p = torch.tensor([weights], dtype=torch.float32)
    i = invert(p, np.array([u])).item()
    c = np.cumsum(weights) / sum(weights)
    assert weights[i] > 0
    assert (c[i - 1] if i else 0) <= u + 1e-9 and u <= c[i] + 1e-9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=30), st.floats(0.05, 1.0), st.integers(0, 30), st.floats(0.3, 3))
def test_truncation_keeps_the_smallest_set(logits, top_p, top_k, temperature):
    how = Decoding(temperature=temperature, top_p=top_p, top_k=top_k)
    p = distribution(torch.tensor([logits]), how)[0].double().numpy()
    full = torch.softmax(torch.tensor(logits) / temperature, -1).double().numpy()
    kept = p > 0
    assert kept.any() and (not top_k or kept.sum() <= top_k) and np.allclose(p[kept], full[kept])
    if not kept.all(): assert full[kept].min() >= full[~kept].max() - 1e-7
    pool = np.sort(full)[::-1][: top_k or None].sum()
    assert p.sum() >= top_p * pool - 1e-5 and p.sum() - p[kept].min() < top_p * pool + 1e-5


def test_streams_are_uniform_and_unrelated():
    keys = np.array([draw_key("m", [1, 2, 3], i) for i in range(400)], np.uint64)
    u = np.array([uniforms(keys, np.full(400, t)) for t in range(50)])
    assert 0 <= u.min() and u.max() < 1 and abs(u.mean() - 0.5) < 0.01 and len(set(keys.tolist())) == 400
    assert abs(np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]) < 0.03 and abs(np.corrcoef(u[:, :-1].ravel(), u[:, 1:].ravel())[0,
            1]) < 0.03
    for other in (draw_key("m2", [1, 2, 3], 0), draw_key("m", [1, 2, 4], 0), draw_key("m", [1, 2, 3], 1)):
        assert other != draw_key("m", [1, 2, 3], 0)
    assert list(product(keys[:3].tolist())) == [(draw_key("m", [1, 2, 3], i),) for i in range(3)]


def test_greedy_picks_the_first_best_and_reports_its_probability():
    tokens, logp = choose(torch.tensor([[0.0, 2.0, 2.0], [3.0, 0.0, 0.0]]), np.zeros(2), Decoding())
    assert tokens.tolist() == [1, 0]
    np.testing.assert_allclose(logp, [-np.log(2 + np.exp(-2)), -np.log(1 + 2 * np.exp(-3))], rtol=1e-5)


def test_recorded_completions_are_repeated_and_nothing_is_invented():
    table = pd.DataFrame(dict(instance=["a", "a", "b"], draw_index=[0, 1, 0], text=["x", "y", "z"], n_tok=[4, None, 2], finish=["stop",
            None, "length"]))
    model = Recorded(table, "old")
    got = [c for part in model.complete([Request("p", (0, 1), "a"), Request("q", (0,), "b")], Decoding()) for c in part]
    assert [(c.text, c.n_tok, c.finish, c.token_ids, c.logprobs) for c in got] == [("x", 4, "stop", None, None), ("y", None, None, None,
            None), ("z", 2, "length", None, None)]
    with pytest.raises(ValueError, match=r"'old' has 2 completions of 'a'.*\[2\]"):
        list(model.complete([Request("p", (0, 1, 2), "a")], Decoding()))
    with pytest.raises(ValueError, match="has 0 completions of 'c'"): list(model.complete([Request("p", (0,), "c")], Decoding()))
    with pytest.raises(ValueError, match="twice"): Recorded(pd.concat([table, table]), "old")
    with pytest.raises(ValueError, match="lack"): Recorded(table.drop(columns="text"), "old")
    assert Recorded(table, "old").id == model.id != Recorded(table.assign(text="w"), "old").id


# ---- texts and ids

def sentencepiece(bos=True):
    "Like Llama 2: a space in front of every text, bytes for what is unknown, BOS."
    tok = Tokenizer(kinds.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    tok.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=420, special_tokens=special, show_progress=False, max_token_length=8))
    if bos: tok.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def small_llama(tok, **kw):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(intermediate_size=64, **SMALL, **dict(dict(vocab_size=len(tok), eos_token_id=None,
                                                                                   bos_token_id=None), **kw)))


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="AQ: 35\n.+", min_size=1, max_size=12), st.text(alphabet="aA: 35\n.+", min_size=1, max_size=12))
def test_prompt_and_completion_join_as_the_text_does(prompt, completion):
    for tok in (TOKENIZER, sentencepiece()):
        lm = READERS.setdefault(len(tok), LM(small_llama(tok), tok, "r", "r"))
        ids = lm.prompt_ids(prompt) + lm.completion_ids(completion)
        assert lm.tokenizer.decode(ids,
                                   skip_special_tokens=True) == prompt.removeprefix(" " * (len(tok) != V)) + completion or prompt[0] == " "
        assert lm.decode(lm.completion_ids(completion)) == completion


READERS: dict = {}


def test_a_token_without_an_embedding_is_refused():
    tok = make_tokenizer()
    lm = LM(small_llama(tok), tok, "small", "small")
    tok.add_tokens(["[STEP]"])
    for asked in (lambda: lm.prompt_ids("A [STEP]"), lambda: lm.completion_ids("[STEP]"), lambda: run(lm, [Request("[STEP]")], Decoding())):
        with pytest.raises(ValueError, match=r"'\[STEP\]'\) has no embedding: 'small' has 320"): asked()


def test_without_an_eos_nothing_can_end():
    tok = make_tokenizer()
    tok.eos_token = None
    lm = LM(small_llama(tok), tok, "endless", "endless")
    with pytest.raises(ValueError, match="has no EOS"): lm.completion_ids("A", eos=True)
    assert lm.eos_ids == () and run(lm, [Request("A")], Decoding(max_tok=3))["A", 0].finish == "length"


def test_a_saved_model_stops_at_every_eos_that_is_known(tmp_path):
    tok = make_tokenizer(bos=True)
    lm = LM(small_llama(tok, eos_token_id=2), tok, "two", "two")  # the tokenizer says 1, the configuration 2
    assert lm.eos_ids == (1, 2)
    before = lm.net.generation_config
    lm.save(tmp_path / "a")
    assert GenerationConfig.from_pretrained(tmp_path / "a").eos_token_id == [1, 2] and lm.net.generation_config is before
    lm.net.generation_config.temperature = 0.5  # without do_sample: transformers would refuse to write it
    lm.save(tmp_path / "b")
    saved = GenerationConfig.from_pretrained(tmp_path / "b")
    assert saved.eos_token_id == [1, 2] and saved.temperature in (None, 1.0)


# ---- identity

def test_an_id_follows_the_files_and_is_not_computed_twice(tmp_path, monkeypatch):
    lm, a = make_lm("llama"), tmp_path / "a"
    lm.net.get_output_embeddings().bias = None
    lm.save(a)
    hashed, real = [], folders._hash
    monkeypatch.setattr(folders, "_hash", lambda folder: hashed.append(folder) or real(folder))
    first = folder_id(a)
    for p in a.iterdir(): os.utime(p, (1e9, 1e9))
    monkeypatch.setattr(folders.time, "time_ns", lambda: int(4e18))  # long after
    stamp = folder_stamp(a)
    assert folder_id(a) == folder_id(str(a)) == first and len(hashed) == 2
    data = (a / "model.safetensors").read_bytes()
    (a / "model.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # as long as before
    os.utime(a / "model.safetensors", (1e9, 1e9))  # and, it says, as old
    assert folder_stamp(a) != stamp and folder_id(a) != first
    assert load(a).id == folder_id(a) and load(a, dtype="bfloat16").id == folder_id(a) + "/bfloat16"


# ---- damaged models

def edit_json(name, **changes):
    def edit(folder): (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | changes))
    return edit


def edit_tensors(change):
    def edit(folder):
        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors", {"format": "pt"})
    return edit


def cut(name, n): return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:n])


UP = "model.layers.1.mlp.up_proj.weight"
DAMAGE = {
    "missing tensor": (edit_tensors(lambda t: t.pop(UP)), ValueError, f"lacks {UP}"),
    "missing head": (edit_tensors(lambda t: t.pop("lm_head.weight")), ValueError, "lacks lm_head.weight"),
    "far larger than its files": (edit_json("config.json", hidden_size=10**7),
                                 ValueError, "describes a network of .* numbers, its files hold"),
    "more layers than bytes": (edit_json("config.json", num_hidden_layers=10**9),
                              ValueError, "describes a network of 1,000,000,000 layers"),
    "weights that are a folder": (lambda p: ((p / "model.safetensors").unlink(), (p / "model.safetensors").mkdir()),
                                  FileNotFoundError, "is no file"),
    "fewer layers than configured": (edit_json("config.json", num_hidden_layers=3), ValueError, r"lacks model.layers.2.*\(9\)"),
    "more layers than configured": (edit_json("config.json", num_hidden_layers=1), ValueError,
                                    "holds model.layers.1.*larger or another model"),
    "a bias that is not configured": (edit_tensors(lambda t: t.update({UP[:-6] + "bias": torch.ones(64)})), ValueError,
                                      "holds .*up_proj.bias"),
    "wrong shape": (edit_tensors(lambda t: t.update({UP: torch.ones(3, 32)})), ValueError, "wrong shapes of .*up_proj"),
    "wrong width": (edit_json("config.json", hidden_size=64), ValueError, "wrong shapes of"),
    "not a number": (edit_tensors(lambda t: t[UP][0].fill_(float("nan"))), ValueError, f"{UP} holds 32 values that are no numbers"),
    "infinite": (edit_tensors(lambda t: t[UP][0, 0].fill_(float("inf"))), ValueError, f"{UP} holds 1 values"),
    "whole numbers": (edit_tensors(lambda t: t.update({UP: t[UP].to(torch.int32)})), ValueError,
                      f"{UP} holds I32, expected one of F64, F32"),
    "cut weights": (cut("model.safetensors", -50), ValueError, "no complete safetensors file"),
    "cut header": (cut("model.safetensors", 20), ValueError, r"\(20 bytes\) is no complete safetensors file"),
    "empty weights": (cut("model.safetensors", 0), ValueError, "no complete safetensors file"),
    "a pointer": (lambda d: (d / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\nsize 9\n"), ValueError,
                  "git lfs pull"),
    "cut configuration": (cut("config.json", 30), ValueError, "config.json is no JSON"),
    "unknown architecture": (edit_json("config.json", model_type="no-such-model"), ValueError, "describes no model"),
    "no language model": (edit_json("config.json", model_type="vit", architectures=["ViTModel"]), ValueError, "reads and writes text"),
    "no tokenizer": (lambda d: [(d / k).unlink() for k in ("tokenizer.json", "tokenizer_config.json")], FileNotFoundError,
                     "has no tokenizer"),
    "only its configuration": (lambda d: (d / "tokenizer.json").unlink(), FileNotFoundError, "has no tokenizer"),
    "cut tokenizer": (cut("tokenizer.json", 500), ValueError, "tokenizer of .* cannot be read"),
    "a lost shard": (lambda d: ((d / "model.safetensors").rename(d / "model-00001-of-00002.safetensors"),
                                (d / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {UP: "model-00002-of-00002.safetensors"}}))), FileNotFoundError,
                     "lacks model-00002-of-00002"),
}


@pytest.mark.parametrize("limit", [1000, 30_000])
def test_a_full_disk_names_the_folder_of_a_model(limit, tmp_path):
    import resource
    lm, before = LM(small_llama(tok := make_tokenizer()), tok, "x", "x"), resource.getrlimit(resource.RLIMIT_FSIZE)
    was = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # no file may be longer
    try:
        with pytest.raises(OSError, match=f"the disk is full: {tmp_path / 'm'} was not written"): lm.save(tmp_path / "m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, was)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_refused_in_one_clear_line(damage, tmp_path):
    edit, error, words = DAMAGE[damage]
    tok = make_tokenizer()
    folder = LM(small_llama(tok), tok, "x", "x").save(tmp_path / "m")
    load(folder)
    edit(folder)
    with pytest.raises(error, match=words) as e: load(folder)
    assert "\n" not in str(e.value) and len(str(e.value)) < 700


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "t5", "bloom"])
def test_shared_and_extra_tensors_are_no_damage(name, tmp_path):
    "Tied embeddings are stored once; a head of its own, as reward models have, is left aside."
    torch.manual_seed(0)
    lm = LM(NETS[name](), make_tokenizer(eos_last=True) if name == "t5" else TOKENIZER, name, name)
    lm.save(tmp_path / "m")
    edit_tensors(lambda t: t.update({"v_head.weight": torch.ones(1, 32)}))(tmp_path / "m")
    assert load(tmp_path / "m").n_params == lm.n_params


def test_the_text_part_of_a_model_that_also_sees(tmp_path):
    tok = make_tokenizer(bos=True)
    tok.add_special_tokens({"additional_special_tokens": ["<img>"]})
    text = dict(vocab_size=len(tok), intermediate_size=64, num_key_value_heads=2, head_dim=16, max_position_embeddings=128,
                query_pre_attn_scalar=16, **SMALL)
    sight = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16)
    config = Gemma3Config(text_config=text, vision_config=sight, eos_token_id=[1], image_token_id=len(tok) - 1, mm_tokens_per_image=4)
    torch.manual_seed(0)
    Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path / "m")
    tok.save_pretrained(tmp_path / "m")
    lm = load(tmp_path / "m")
    got = run(lm, [Request(p) for p in PROMPTS[:3]], Decoding(max_tok=8))
    for p in PROMPTS[:3]: assert got[p, 0].token_ids.tolist() == generate(lm, p, 8)
    with pytest.raises(ValueError, match="128 positions"): run(lm, [Request("A")], Decoding(max_tok=200))


def test_numbers_that_overflow_are_no_draws():
    tok = make_tokenizer()
    lm = LM(small_llama(tok), tok, "hot", "hot")
    with torch.no_grad(): lm.net.lm_head.weight.fill_(1e38)
    with pytest.raises(ValueError, match="log-probability of a token"): run(lm, [Request("A")], Decoding(max_tok=3))


def test_threads_come_back_however_blocks_overlap():
    before = torch.get_num_threads()
    first, second = threads(before + 1), threads(before + 2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert torch.get_num_threads() == before


def _copied(tmp_path, name="pocket/xs"):
    folder = tmp_path / "m"
    shutil.copytree(pocket_models()[name], folder)
    return folder


def _changed(path, **more): path.write_text(json.dumps(json.loads(path.read_text()) | more))


def test_weights_that_lie_elsewhere_are_refused(tmp_path):
    folder = _copied(tmp_path)
    (folder / "adapter_config.json").write_text("{}")
    for read in (load, encoder.__wrapped__):
        with pytest.raises(ValueError, match="merge_and_unload"): read(str(folder))
    (folder / "adapter_config.json").unlink()
    _changed(folder / "config.json", transformers_weights="sub/w.safetensors")
    with pytest.raises(ValueError, match="transformers_weights"): load(folder)


def test_a_tensor_lies_in_one_shard_the_one_that_the_index_names(tmp_path):
    folder = _copied(tmp_path)
    tensors = {k: v.clone() for k, v in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    first, a, b = sorted(tensors)[:5], "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    places = {k: a if k in first else b for k in tensors}
    for shard in (a, b): save_file({k: v for k, v in tensors.items() if places[k] == shard}, folder / shard, metadata=dict(format="pt"))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps(dict(metadata=dict(total_size=1), weight_map=places)))
    assert load(folder).id
    index.write_text(json.dumps(dict(metadata=dict(total_size=1), weight_map=places | {first[0]: b})))
    with pytest.raises(ValueError, match="or should be by the index"): load(folder)
    save_file(tensors, folder / b, metadata=dict(format="pt"))
    index.write_text(json.dumps(dict(metadata=dict(total_size=1), weight_map=places)))
    with pytest.raises(ValueError, match="which is in .*, too"): load(folder)


def test_a_tokenizer_that_cannot_or_will_not_repeat_itself(tmp_path):
    folder = _copied(tmp_path)
    told = json.loads((folder / "tokenizer.json").read_text())
    told["model"]["dropout"] = 0.5
    (folder / "tokenizer.json").write_text(json.dumps(told))
    lm = load(folder)
    assert len({tuple(lm.prompt_ids("Ann has 4 pens and 17 apples in her bag")) for _ in range(20)}) == 1
    _changed(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    with pytest.raises(ValueError, match="tokenizer of .* cannot be read"): load(folder)
    folder = _copied(tmp_path / "other")
    _changed(folder / "config.json", pad_token_id=10**9)
    with pytest.raises(ValueError, match="do not fit its config.json"): load(folder)
    with pytest.raises(ValueError, match="no revision 'zz'"): load("pocket/xs", revision="zz")


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize("text", ["<eos>", "a <eos> b", "<pad><bos>x", "2 <eos", "</s>"])
def test_what_looks_like_a_control_token_in_a_completion_is_text(kind, text):
    lm = make_lm(kind)
    ids = lm.completion_ids(text, eos=True)
    assert not {0, 1, 2} & set(ids[:-1]) and ids[-1] == 1 and lm.decode(ids) == text
    assert special_in(lm, text) == next((t for t in ("<eos>", "<pad>", "<bos>") if t in text), None)
    assert special_in(object(), text) is None


@pytest.mark.parametrize("unk, found", [("<unk>", None), ("<eos>", "<eos>"), (None, None), ("<|endoftext|>", "<|endoftext|>")])
def test_a_token_for_unknown_words_is_text_unless_it_is_more(unk, found):
    lm = make_lm("llama")
    lm.tokenizer = make_tokenizer()
    if unk: lm.tokenizer.add_special_tokens({"unk_token": unk})
    assert special_in(lm, f"a {unk} b") == found and special_in(lm, "a <pad>") == "<pad>"


def test_a_vocabulary_without_merges_is_no_tokenizer(tmp_path):
    LM(small_llama(tok := make_tokenizer()), tok, "x", "x").save(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    (tmp_path / "m" / "vocab.json").write_text(json.dumps(tok.get_vocab()))
    with pytest.raises(FileNotFoundError, match="vocab.json and no merges.txt"): load(tmp_path / "m")


def test_a_template_that_asks_for_the_day_gets_one_day():
    lm = make_lm("llama")
    lm.tokenizer = make_tokenizer()
    lm.tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}|{{ messages[0]['content'] }}|"
    assert lm.decode(lm.as_chat().prompt_ids("Why?")) == "26 Jul 2024|Why?|"
    for call in ("strftime_now('%d %b %Y')", 'strftime_now(format="%d %b %Y")', "strftime_now(f)"):
        lm.tokenizer.chat_template = ("{# strftime_now(x) #}{% set f = '%d %b %Y' %}{{ " + call + " }}, one o'clock|"
                                      "{{ messages[0]['content'] }}|")
        assert lm.decode(lm.as_chat().prompt_ids("Why?")) == "26 Jul 2024, one o'clock|Why?|"
    lm.tokenizer.chat_template = "{{ strftime_now('%H' + ':%M') }}|{{ messages[0]['content'] }}|"
    with pytest.raises(ValueError, match="asks for the time in a way that cannot be held still"): lm.as_chat().prompt_ids("Why?")


@pytest.mark.parametrize("wish, said", [
    (dict(repetition_penalty=1.1), "repetition_penalty=1.1"), (dict(suppress_tokens=[5]), "suppress_tokens="),
    (dict(num_beams=4), "num_beams=4"), (dict(repetition_penalty=1.0), "")])
def test_what_a_generation_configuration_asks_for_is_followed_or_named(tmp_path, wish, said, recwarn):
    LM(small_llama(tok := make_tokenizer()), tok, "x", "x").save(tmp_path / "m")
    _changed(tmp_path / "m" / "generation_config.json", **wish)
    load(tmp_path / "m")
    told = [str(w.message) for w in recwarn if "is not followed" in str(w.message)]
    assert bool(told) == bool(said) and all(said in t for t in told), told


def test_models_opened_at_once_are_those_opened_one_by_one():
    "The type of new tensors and the random numbers of weights belong to the process."
    from concurrent.futures import ThreadPoolExecutor
    tokenizer = load("pocket/xs").tokenizer
    ways = [lambda: scratch("0.1m", tokenizer).id, lambda: load("pocket/xs", dtype="bfloat16").net.lm_head.weight.dtype,
            lambda: load("pocket/xs").net.lm_head.weight.dtype]
    alone = [way() for way in ways]
    with ThreadPoolExecutor(6) as pool: together = list(pool.map(lambda k: ways[k % 3](), range(12)))
    assert together == alone * 4
