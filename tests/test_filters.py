"""Filters are pure, seeded, nested where they promise it, and never invent a chain."""
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from cotstudy.filters import FILTERS, NEEDS_NUMBER, agree, apply_filters, first, open_ended, parse_filter, sample, votes

WORDS = st.sampled_from(["3 + 2 = 5", "2 + 3 = 5", "so it is five", "4 - 1 is 3", "oh", "a b c d e"])


@st.composite
def chain_frames(draw):
    rows = []
    for i in range(draw(st.integers(1, 6))):
        for k in range(draw(st.integers(1, 7))):
            answer = draw(st.sampled_from(["5", "3", None]))
            rows.append((f"q{i}", k, draw(WORDS), answer, answer == "5", draw(st.floats(-3, 0)), draw(st.integers(1, 9))))
    return pd.DataFrame(rows, columns=["instance", "draw_index", "rationale", "answer", "correct", "logprob", "n_tok"])


def spec(name):
    return f"{name}:3" if name in NEEDS_NUMBER else name


@settings(max_examples=25, deadline=None)
@given(chains=chain_frames(), seed=st.integers(0, 3), name=st.sampled_from(sorted(FILTERS)))
def test_every_filter_selects_and_repeats(chains, seed, name):
    kept = apply_filters(chains, [spec(name)], seed)
    assert set(kept.index) <= set(chains.index) and not kept.index.has_duplicates
    assert kept.equals(apply_filters(chains, [spec(name)], seed))
    assert list(kept.index) == sorted(kept.index)
    if name in NEEDS_NUMBER:
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


@pytest.mark.parametrize("bad", ["furst:2", "first", "first:0", "first:-1", "likely:many", "correct:x", ""])
def test_malformed_specs_are_refused(bad):
    with pytest.raises(ValueError):
        parse_filter(bad)
