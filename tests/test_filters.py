"""Filters are pure, seeded, nested where they promise it, and never invent a chain."""
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from cotstudy.filters import FILTERS, agree, apply_filters, diverse_by, encoder, first, needed, open_ended, parse_filter, sample, tally, \
    votes

WORDS = st.sampled_from(["3 + 2 = 5", "2 + 3 = 5", "so it is five", "4 - 1 is 3", "oh", "a b c d e"])


@st.composite
def chain_frames(draw):
    rows = []
    for i in range(draw(st.integers(1, 6))):
        for k in range(draw(st.integers(1, 7))):
            answer = draw(st.sampled_from(["5", "3", None]))
            rows.append((f"q{i}", k, draw(WORDS), answer, answer == "5", draw(st.floats(-3, 0)), draw(st.integers(1, 9))))
    return pd.DataFrame(rows, columns=["instance", "draw_index", "rationale", "answer", "correct", "logprob", "n_tok"]).assign(
        sound=lambda d: d.correct.astype(float))


def spec(name):
    return f"{name}:3" if FILTERS[name].number else name


@settings(max_examples=25, deadline=None)
@given(chains=chain_frames(), seed=st.integers(0, 3), name=st.sampled_from(sorted(set(FILTERS) - {"diverse_by"})))
def test_every_filter_selects_and_repeats(chains, seed, name):
    kept = apply_filters(chains, [spec(name)], seed)
    assert set(kept.index) <= set(chains.index) and not kept.index.has_duplicates
    assert kept.equals(apply_filters(chains, [spec(name)], seed))
    assert list(kept.index) == sorted(kept.index)
    if FILTERS[name].number:
        assert kept.groupby("instance").size().max() <= 3


@settings(max_examples=25, deadline=None)
@given(chains=chain_frames(), seed=st.integers(0, 3), n=st.integers(1, 6))
def test_n_is_nested_and_independent_of_other_questions(chains, seed, n):
    for f in (first, sample):
        assert set(f(chains, n, seed).index) <= set(f(chains, n + 1, seed).index)
    alone = chains[chains.instance == "q0"]
    whole = sample(chains, n, seed)
    assert set(sample(alone, n, seed).index) == set(whole[whole.instance == "q0"].index)


@settings(max_examples=25, deadline=None)
@given(chains=chain_frames())
def test_agreement_uses_no_gold(chains):
    blind = chains.drop(columns="correct")
    assert agree(blind).index.equals(agree(chains).index)
    assert set(agree(blind).answer.dropna()) <= set(votes(blind).values())


def test_correct_without_gold_says_what_to_do():
    with pytest.raises(ValueError, match="agree"):
        apply_filters(pd.DataFrame(dict(instance=["a"], draw_index=[0], rationale=["x"], answer=["5"])), ["correct"])


def test_open_ended_keeps_five_on_average():
    rows = [(f"q{i}", k, " ".join(f"w{i}{k}{j % (i + 1)}" for j in range(20)), "5") for i in range(10) for k in range(12)]
    chains = pd.DataFrame(rows, columns=["instance", "draw_index", "rationale", "answer"])
    sizes = open_ended(chains).groupby("instance").size()
    assert sizes.mean() == 5 and sorted(sizes.unique()) == [1, 3, 5, 7, 9]
    assert sizes["q9"] == 9 and sizes["q0"] == 1


@given(answers=st.lists(st.sampled_from(["5", "3", "7", None]), max_size=12))
def test_a_tie_goes_to_the_answer_that_came_first(answers):
    chains = pd.DataFrame(dict(instance="q", answer=pd.Series(answers, dtype=object)))
    valid = [a for a in answers if a is not None]
    leaders = [a for a in dict.fromkeys(valid) if valid.count(a) == max(map(valid.count, valid))]
    assert votes(chains) == ({"q": leaders[0]} if leaders else {})
    assert [a for a, share in tally(answers).items() if share == max(tally(answers).values())] == leaders


@pytest.fixture(scope="module")
def sentence_encoder(tmp_path_factory):
    "A tiny BERT of random weights."
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    folder, words = tmp_path_factory.mktemp("encoder"), ["[PAD]", "[UNK]", "a", "b", "c", "d", "e"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    small = BertConfig(vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                       max_position_embeddings=8)
    BertModel(small).save_pretrained(folder)
    return folder


def test_embeddings_are_means_over_real_tokens(sentence_encoder):
    embed = encoder(str(sentence_encoder))
    together, alone = embed(["a b", "a b c d e", ""]), embed(["a b"])
    assert together.shape == (3, 16) and together[0] == pytest.approx(alone[0], abs=1e-5)  # padding does not count
    assert embed(["a " * 50]).shape == (1, 16)  # longer than it can read: cut


def test_diversity_by_sentence_embeddings(sentence_encoder):
    says = ["a b", "a b", "a b", "d e c", "d e c", "d e c"]
    chains = pd.DataFrame(dict(instance="q", draw_index=range(6), rationale=says, answer="5"))
    for seed in range(5):
        kept = apply_filters(chains, [f"diverse_by:{sentence_encoder}:2"], seed)
        assert sorted(kept.rationale) == ["a b", "d e c"]
    assert len(diverse_by(chains.assign(rationale="same"), 3, by=str(sentence_encoder))) == 1  # one cluster, one chain
    sieve = parse_filter(spec := f"diverse_by:{sentence_encoder}:2")
    assert (sieve.filter.name, sieve.number, sieve.by, str(sieve)) == ("diverse_by", 2, str(sentence_encoder), spec)
    with pytest.raises(ValueError, match="40 hex digits"): apply_filters(chains, ["diverse_by:owner/model:2"])


def test_a_filter_is_looked_up_once(monkeypatch):
    chains = pd.DataFrame(dict(instance="q", draw_index=range(4), rationale="x", answer=["5", None, "5", "4"], n_tok=[3, 2, 1, 0]))
    sieves = [parse_filter(f) for f in ("parsed", "shortest:2")]
    want = apply_filters(chains, ["parsed", "shortest:2"])
    monkeypatch.setattr("cotstudy.filters.FILTERS", None)
    assert apply_filters(chains, sieves).equals(want) and list(want.n_tok) == [1, 0] and needed(sieves) == ("n_tok",)
    assert [parse_filter(s) for s in sieves] == sieves


@pytest.mark.parametrize("bad", ["diverse_by", "diverse_by:5", "diverse_by:x", "diverse_by:x:0", "diverse_by::3", "furst:2", "first",
                                 "first:0", "first:-1", "likely:many", "correct:x", ""])
def test_malformed_specs_are_refused(bad):
    with pytest.raises(ValueError):
        parse_filter(bad)
