"""The seams of evaluate: votes, intervals and tests against hand-computed values, scipy/statsmodels, and known truths."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st
from scipy import optimize, stats
from statsmodels.stats.power import TTestPower

from cotstudy.evaluate import (
    Estimate, bootstrap_mean, chance_row, design_effect, detectable_difference, holm, majority_row, mcnemar, mean_over_tasks,
    paired_bootstrap, pool_seeds, simulate_pairs, summarise, tally, tango_z, tost, two_level_bootstrap, vote, vote_items, wilson)

predictions = st.lists(st.sampled_from(["A", "B", "C", None]), min_size=1, max_size=9)


def items_of(answers, gold="A", eval_id="e", instance="q"):
    return pd.DataFrame(dict(eval_id=eval_id, instance=instance, path=range(len(answers)), prediction=pd.Series(answers, dtype=object),
                             correct=[a == gold for a in answers], parsed=[a is not None for a in answers], truncated=False, n_tok=7))


# --- votes ---

@given(predictions)
def test_vote_is_a_fair_choice_among_the_leaders(answers):
    winners = vote(answers)
    valid = [a for a in answers if a is not None]
    if not valid: assert winners == {} and tally(answers) == {}
    else:
        assert sum(winners.values()) == pytest.approx(1) and len(set(winners.values())) == 1
        top = max(valid.count(a) for a in valid)
        assert set(winners) == {a for a in valid if valid.count(a) == top}
        assert sum(tally(answers).values()) == pytest.approx(1)


@given(predictions, st.randoms())
def test_vote_ignores_order_and_missing_answers(answers, random):
    shuffled = answers + [None, float("nan"), pd.NA]
    random.shuffle(shuffled)
    assert vote(shuffled) == vote(answers)


@given(st.lists(predictions, min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_vote_items_agrees_with_vote(all_answers):
    items = pd.concat([items_of(a, instance=f"q{i}") for i, a in enumerate(all_answers)])
    voted = vote_items(items)
    assert voted.instance.tolist() == [f"q{i}" for i in range(len(all_answers))]
    for row, answers in zip(voted.itertuples(), all_answers):
        winners = vote(answers)
        assert row.score == pytest.approx(winners.get("A", 0.0)) and row.n_winners == len(winners)
        assert row.n_paths == len(answers) and row.n_unparsed == answers.count(None) and row.n_tok == 7 * len(answers)


def test_greedy_is_a_vote_of_one():
    items = pd.concat([items_of([a], instance=f"q{i}") for i, a in enumerate(["A", "B", None, "A"])])
    assert vote_items(items).score.tolist() == [1, 0, 0, 1]


def test_two_spellings_of_the_gold_answer_both_count():
    items = items_of(["5", "5.0", "6"]).assign(correct=[True, True, False])
    assert vote_items(items).score[0] == pytest.approx(2 / 3)


def test_votes_survive_parquet(tmp_path):
    items = pd.concat([items_of(["A", None, "B"]), items_of([None, None, None], instance="r")])
    items.to_parquet(tmp_path / "items.parquet")
    pd.testing.assert_frame_equal(vote_items(pd.read_parquet(tmp_path / "items.parquet")), vote_items(items), check_dtype=False)


def test_summary_counts_everything():
    items = pd.concat([items_of(["A", "A", None]), items_of(["A", "B", None], instance="r"), items_of([None] * 3, instance="s")])
    row = summarise(items.assign(truncated=items.prediction.isna()))
    assert (row["n"], row["n_paths"], row["n_unparsed"], row["n_truncated"], row["n_unanswered"], row["n_tied"]) == (3, 3, 5, 5, 1, 1)
    assert row["accuracy"] == pytest.approx(0.5) and row["lo"] < 0.5 < row["hi"] and row["mean_tok"] == 7


def test_everything_unparsed_scores_zero_and_is_counted():
    row = summarise(items_of([None, None]))
    assert row["accuracy"] == 0 and row["n_unanswered"] == 1


@pytest.mark.parametrize("items, message", [
    (items_of(["A"]).iloc[:0], "empty"),
    (pd.concat([items_of(["A"])] * 2), "twice"),
    (items_of(["A"]).drop(columns="parsed"), "lack"),
    (pd.concat([items_of(["A"]), items_of(["A"], eval_id="f")]), "2 evaluations"),
    (pd.concat([items_of(["A"]), items_of(["A", "B"], instance="r")]), "paths")])
def test_summary_refuses_what_it_cannot_count(items, message):
    with pytest.raises(ValueError, match=message): summarise(items)


# --- one proportion ---

@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_contains_the_share_and_mirrors(kn):
    k, n = kn
    lo, hi = wilson(k, n)
    assert 0 <= lo <= k / n + 1e-12 and k / n - 1e-12 <= hi <= 1
    assert wilson(n - k, n) == pytest.approx((1 - hi, 1 - lo), abs=1e-9)


def test_wilson_equals_scipy():
    ci = stats.binomtest(13, 40).proportion_ci(method="wilson")
    assert wilson(13, 40) == pytest.approx((ci.low, ci.high))


def test_wilson_ends_are_exact_at_the_borders():
    for n in (1, 2, 10, 37, 100, 2000, 10**6):
        assert wilson(0, n)[0] == 0 and wilson(n, n)[1] == 1 and 0 < wilson(0, n)[1] <= 1 - wilson(n, n)[0] + 1e-12 < 1
        assert all(0 < e < 1 for e in wilson(0.5, n))


def test_wilson_refuses_impossible_counts():
    for k, n in [(3, 2), (-1, 5), (0, 0)]:
        with pytest.raises(ValueError, match="right answers"): wilson(k, n)


def test_wilson_coverage_near_zero():
    rng = np.random.default_rng(0)
    ks = rng.binomial(50, 0.03, 2000)
    assert np.mean([lo <= 0.03 <= hi for lo, hi in (wilson(k, 50) for k in ks)]) > 0.93


def test_floors():
    assert chance_row(0.25, 8)["n_correct"] == 2
    row = majority_row(["b", "a", "b", "a"], ["a", "b", "a"])
    assert row["answer"] == "a" and row["accuracy"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError): chance_row(25, 8)
    with pytest.raises(ValueError): majority_row([], ["a"])


# --- estimates ---

@given(st.floats(-0.5, 0.5), st.floats(0.001, 0.2), st.sampled_from([2, 5, np.inf]), st.floats(0.5, 0.999))
def test_interval_and_p_value_agree(value, se, df, level):
    e = Estimate(value, se, df)
    lo, hi = e.interval(level)
    assert (lo > 0 or hi < 0) == (e.p_value() < 1 - level) or abs(e.p_value() - (1 - level)) < 1e-9


@given(st.floats(-0.2, 0.2), st.floats(0.001, 0.2))
def test_tost_is_a_90_percent_interval_inside_the_margin(value, se):
    e = Estimate(value, se)
    lo, hi = e.interval(0.90)
    assert (lo > -0.05 and hi < 0.05) == (e.p_equivalent(0.05) < 0.05) or abs(e.p_equivalent(0.05) - 0.05) < 1e-9


def test_estimate_without_spread_is_decided():
    assert Estimate(0.1, 0.0).p_value() == 0 and Estimate(0.0, 0.0).p_value() == 1
    with pytest.raises(ValueError, match="margin"): Estimate(0.1, 0.1).p_equivalent(0)


def test_detectable_effect_is_what_the_power_formula_says():
    n, sd = 400, 0.5
    by_statsmodels = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8) * sd
    assert Estimate(0, sd / np.sqrt(n)).detectable() == pytest.approx(by_statsmodels, rel=0.01)
    assert detectable_difference(400, 0.25) == pytest.approx(by_statsmodels, rel=0.01)


def test_detectable_effect_is_detected_four_times_in_five():
    rng = np.random.default_rng(0)
    e = Estimate(0, 0.02)
    found = [Estimate(v, 0.02).p_value() < 0.05 for v in rng.normal(e.detectable(), 0.02, 4000)]
    assert 0.78 < np.mean(found) < 0.82


# --- paired comparisons ---

def pair(only_a, only_b, both, neither):
    names = [f"q{i}" for i in range(only_a + only_b + both + neither)]
    return (pd.Series([1.0] * only_a + [0.0] * only_b + [1.0] * both + [0.0] * neither, names),
            pd.Series([0.0] * only_a + [1.0] * only_b + [1.0] * both + [0.0] * neither, names))


def test_bootstrap_mean_against_scipy():
    values = np.random.default_rng(3).random(80)
    ours = bootstrap_mean(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(0))
    assert ours.se == pytest.approx(theirs.standard_error, rel=0.06)
    assert ours.interval() == pytest.approx(tuple(theirs.confidence_interval), abs=0.008)


def test_bootstrap_is_seeded():
    assert bootstrap_mean([0, 1, 1, 0], seed=5) == bootstrap_mean([0, 1, 1, 0], seed=5) != bootstrap_mean([0, 1, 1, 0], seed=6)
    with pytest.raises(ValueError): bootstrap_mean([1.0])


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 12), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_paired_tests_are_antisymmetric(only_a, only_b, both, neither):
    a, b = pair(only_a, only_b, both, neither)
    assume(len(a) >= 2)
    forth, back = paired_bootstrap(a, b), paired_bootstrap(b, a.sample(frac=1, random_state=0))
    assert forth.value == pytest.approx(-back.value) and forth.value == pytest.approx((only_a - only_b) / len(a))
    assert forth.se == pytest.approx(back.se, rel=0.15)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected) == pytest.approx(mcnemar(b, a))
    assert tost(a, b, 0.1) == pytest.approx(tost(b, a, 0.1))


def test_paired_refuses_different_questions():
    a, b = pair(2, 1, 3, 4)
    with pytest.raises(ValueError, match="same instances"): paired_bootstrap(a, b.iloc[1:])
    with pytest.raises(ValueError, match="twice"): paired_bootstrap(pd.concat([a, a]), b)
    with pytest.raises(ValueError, match="tied votes"): mcnemar(a * 0.5, b)


@pytest.mark.parametrize("only_a, only_b, n, delta",
                         [(10, 4, 40, 0.05), (3, 9, 50, -0.1), (0, 1, 44, -0.1), (5, 0, 30, 0.2), (0, 0, 25, 0.1)])
def test_tango_against_direct_maximisation(only_a, only_b, n, delta):
    """Maximise the multinomial likelihood under p_a - p_b = delta numerically and form the score statistic from it."""
    def minus_loglik(q):  # q: P(only b right); P(only a right) = q + delta
        p, rest = q + delta, 1 - 2 * q - delta
        return -sum(k * np.log(max(x, 1e-300)) for k, x in ((only_a, p), (only_b, q), (n - only_a - only_b, rest)) if k)
    lo, hi = max(0.0, -delta), (1 - delta) / 2
    q = optimize.minimize_scalar(minus_loglik, bounds=(lo, hi), method="bounded", options=dict(xatol=1e-12)).x
    z = (only_a - only_b - n * delta) / np.sqrt(n * (2 * q + delta - delta**2))
    assert tango_z(only_a, only_b, n, delta) == pytest.approx(z, abs=1e-3)


def test_tango_at_zero_is_mcnemar():
    assert tango_z(12, 5, 60, 0.0) == pytest.approx(7 / np.sqrt(17)) and tango_z(0, 0, 60, 0.0) == 0


def test_tost_keeps_its_level_at_the_margin():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1000):
        cells = rng.multinomial(1000, [0.10, 0.05, 0.6, 0.25])  # true difference 0.05, standard error 0.012
        found.append(tost(*pair(*cells), 0.05) < 0.05)
    assert 0.03 < np.mean(found) < 0.07


def test_tost_finds_equality_with_enough_items_and_not_with_few():
    assert tost(*pair(20, 20, 800, 160), 0.03) < 0.05 < tost(*pair(2, 2, 80, 16), 0.03)
    with pytest.raises(ValueError, match="margin"): tost(*pair(2, 2, 80, 16), 0)


def test_paired_bootstrap_coverage():
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        lo, hi = paired_bootstrap(*pair(*rng.multinomial(60, [0.12, 0.04, 0.5, 0.34])), n_boot=300).interval()
        inside.append(lo <= 0.08 <= hi)
    assert np.mean(inside) > 0.925


# --- two levels ---

def test_two_levels_with_one_seed_is_the_paired_bootstrap():
    frame = simulate_pairs(1, 120, 0.5, 0.0)
    e = two_level_bootstrap(frame)
    p = paired_bootstrap(frame.set_index("instance").a, frame.set_index("instance").b)
    assert e.value == pytest.approx(p.value) and e.se == pytest.approx(p.se, rel=0.06) and e.df == np.inf and e.n_seeds == 1


def test_two_level_standard_error_in_closed_form():
    frame = simulate_pairs(4, 150, 0.5, 0.6)
    d = frame.assign(d=frame.a - frame.b).pivot(index="seed", columns="instance", values="d").to_numpy()
    expected = np.sqrt(d.mean(1).var(ddof=1) / 4 + np.append(d.mean(0), [1, -1]).var() / 152)
    e = two_level_bootstrap(frame, n_boot=8000)
    assert e.se == pytest.approx(expected, rel=0.04) and e.value == pytest.approx(d.mean()) and 3 <= e.df < 100


def test_tasks_weigh_the_same_whatever_their_size():
    big, small = simulate_pairs(3, 300, 0.0, 0.0, task="big"), simulate_pairs(3, 30, 3.0, 0.0, task="small")
    e = two_level_bootstrap(pd.concat([big, small]))
    assert e.value == pytest.approx(((big.a - big.b).mean() + (small.a - small.b).mean()) / 2) and e.n == 330 and e.n_seeds == 3


def test_two_levels_ignore_row_order_and_are_seeded():
    frame = simulate_pairs(3, 40, 0.3, 0.3)
    assert two_level_bootstrap(frame) == two_level_bootstrap(frame.sample(frac=1, random_state=1))


@pytest.mark.parametrize("seed_sd", [0.0, 0.5])
def test_two_level_coverage(seed_sd):
    rng, inside = np.random.default_rng(2), []
    for _ in range(300):
        frame = pd.concat([simulate_pairs(3, 80, 0.0, seed_sd, rng=rng, task=t) for t in "ab"])
        lo, hi = two_level_bootstrap(frame, n_boot=300).interval()
        inside.append(lo <= 0 <= hi)
    assert np.mean(inside) >= 0.93


def test_two_levels_refuse_holes_and_copies():
    frame = simulate_pairs(2, 10, 0.0, 0.0)
    with pytest.raises(ValueError, match="missing"): two_level_bootstrap(frame.iloc[:-1])
    with pytest.raises(ValueError, match="repeat"): two_level_bootstrap(pd.concat([frame, frame.iloc[:1]]))
    with pytest.raises(ValueError, match="lacks"): two_level_bootstrap(frame.drop(columns="seed"))
    with pytest.raises(ValueError, match="empty"): two_level_bootstrap(frame.iloc[:0])


def about_the_same(rng, n_situations=30, n_each=6, n_seeds=2):
    "Made-up paired outcomes without a difference, in which questions about one situation share their luck."
    of = np.repeat(np.arange(n_situations), n_each)
    luck = rng.normal(0, 0.35, n_situations)[of]
    a = (rng.random((n_seeds, len(of))) < 0.5 + luck.clip(-0.4, 0.4)).astype(float)
    each = dict(seed=np.repeat(np.arange(n_seeds), len(of)), instance=np.tile(np.arange(len(of)), n_seeds))
    return pd.DataFrame(dict(task="t", **each, a=a.ravel(), b=0.5, situation=np.tile([f"s{k}" for k in of], n_seeds)))


def test_questions_about_one_situation_are_drawn_together():
    rng, inside, alone = np.random.default_rng(3), [], []
    for _ in range(300):
        frame = about_the_same(rng)
        for found, f in ((inside, frame), (alone, frame.drop(columns="situation"))):
            lo, hi = two_level_bootstrap(f, n_boot=300).interval()
            found.append(lo <= 0 <= hi)
    assert np.mean(inside) >= 0.92 and np.mean(alone) < 0.85
    e = two_level_bootstrap(frame)
    assert e.n == 180 and e.n_situations == 30 and e.df < 100


@pytest.mark.parametrize("n_situations, n_each", [(84, 6), (10, 50)])
def test_few_situations_in_which_nothing_differs_are_no_law(n_situations, n_each):
    of = np.repeat(np.arange(n_situations), n_each)
    same = pd.DataFrame(dict(task="t", seed=0, instance=range(len(of)), a=0.5, b=0.5, situation=[f"s{k}" for k in of]))
    alone = same.iloc[::n_each].drop(columns="situation")
    wide, usual = two_level_bootstrap(same), two_level_bootstrap(alone)
    assert wide.value == 0 and wide.se == pytest.approx(usual.se, rel=0.05)


def test_a_rare_change_of_whole_situations_is_covered():
    rng, inside = np.random.default_rng(1), []
    for _ in range(200):
        flips = (rng.random(84) < 0.02) * rng.choice([-1.0, 1.0], 84)
        frame = pd.DataFrame(dict(task="t", seed=0, instance=range(504), a=flips.repeat(6), b=0.0, situation=np.arange(84).repeat(6)))
        lo, hi = two_level_bootstrap(frame, n_boot=300).interval()
        inside.append(lo <= 0 <= hi)
    assert np.mean(inside) > 0.93
    assert np.isnan(bootstrap_mean([0, 1, 1, 0], groups=["x"] * 4).se)  # one witness


def test_situations_may_be_numbers_categories_or_missing():
    frame = simulate_pairs(2, 6, 0.0, 0.0)
    assert two_level_bootstrap(frame.assign(situation=frame.instance.where(frame.instance > 2))).n_situations == 0  # 1 is no name of item 1
    groups = frame.assign(situation=pd.Categorical(np.where(frame.instance < 3, "x", None)))
    assert two_level_bootstrap(groups).n_situations == 4


def test_situations_of_one_question_each_change_nothing():
    frame = simulate_pairs(3, 40, 0.3, 0.3)
    assert two_level_bootstrap(frame.assign(situation=[f"x{i}" for i in frame.instance])) == two_level_bootstrap(frame)
    half = frame.assign(situation=np.where(frame.instance < 2, "both", None))  # the others say nothing
    assert two_level_bootstrap(half).n_situations == 39


def test_a_design_effect_is_the_size_of_groups_that_answer_alike():
    alike = pd.DataFrame(dict(eval_id="e", situation=np.repeat(range(100), 5), score=np.repeat([0.0, 1.0] * 50, 5)))
    assert design_effect(alike) == pytest.approx(5, rel=0.02)
    assert design_effect(alike.assign(situation=range(500))) == pytest.approx(1, abs=0.01) and design_effect(alike.assign(score=1.0)) == 1
    rows = pd.DataFrame(dict(method="cot", seed=[0, 1], n=500, accuracy=[0.5, 0.5]))
    wide, narrow = (pool_seeds(rows.assign(design_effect=d), ["method"]).iloc[0] for d in (4.0, 1.0))
    assert (wide.hi - wide.lo) / (narrow.hi - narrow.lo) == pytest.approx(2, rel=0.02)
    assert pool_seeds(rows, ["method"]).iloc[0].equals(narrow)


def test_lists_do_and_nonsense_is_refused():
    a, b = [1] * 20 + [0] * 10, [1] * 14 + [0] * 16
    assert mcnemar(a, b) == mcnemar(pd.Series(a), pd.Series(b)) == mcnemar(np.array(a), iter(b)) and paired_bootstrap(a, b).value == 0.2
    for call in (lambda: paired_bootstrap([], []), lambda: mcnemar([], []), lambda: wilson(3, 10, 95), lambda: wilson(3, 10, level=0),
                 lambda: detectable_difference(500, 0.2, power=80), lambda: detectable_difference(500, 2),
                 lambda: detectable_difference(0, 0.2),
                 lambda: Estimate(0.1, 0.05).interval(95), lambda: Estimate(0.1, 0.05).detectable(power=80),
                 lambda: pool_seeds(pd.DataFrame(dict(task=["a", "b"], method="cot", seed=0, n=9, accuracy=0.5)), ["method"])):
        with pytest.raises(ValueError, match="expected|no scores|several tasks"): call()


# --- rows ---

def test_pooled_seeds_cover_the_truth():
    rng, inside = np.random.default_rng(4), []
    item = rng.normal(0, 1.5, 20000)
    truth = np.mean(1 / (1 + np.exp(-(item + rng.normal(0, 0.4, 20000)))))
    for _ in range(400):
        difficulty = rng.normal(0, 1.5, 100)
        logits = difficulty + rng.normal(0, 0.4, (3, 1))
        accuracy = (rng.random((3, 100)) < 1 / (1 + np.exp(-logits))).mean(1)
        row = pool_seeds(pd.DataFrame(dict(method="m", seed=range(3), n=100, accuracy=accuracy)), ["method"]).iloc[0]
        inside.append(row.lo <= truth <= row.hi)
    assert np.mean(inside) > 0.93


@given(st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_pooled_interval_stays_in_bounds(ks):
    row = pool_seeds(pd.DataFrame(dict(m="m", n=50, accuracy=np.array(ks) / 50)), ["m"]).iloc[0]
    assert 0 <= row.lo <= row.accuracy + 1e-9 and row.accuracy - 1e-9 <= row.hi <= 1 and row.n_seeds == len(ks)
    lo, hi = wilson(row.accuracy * 50, 50)
    assert row.lo <= lo + 1e-9 and row.hi >= hi - 1e-9  # seeds never make it narrower than one run of n items


def test_pooling_keeps_conditions_with_missing_values_apart():
    rows = pd.DataFrame(dict(m=["a", "a", "b"], limit=[None, 64, 64], n=20, accuracy=[0.1, 0.2, 0.3]))
    assert pool_seeds(rows, ["m", "limit"]).accuracy.tolist() == [0.1, 0.2, 0.3]


def test_mean_over_tasks_refuses_unequal_tasks():
    rows = pd.DataFrame(dict(task=["x", "y", "x"], method=["a", "a", "b"], accuracy=[0.2, 0.4, 0.9]))
    with pytest.raises(ValueError, match="different tasks"): mean_over_tasks(rows, ["method"])
    assert mean_over_tasks(rows[:2], ["method"]).accuracy.tolist() == pytest.approx([0.3])


# --- many claims ---

@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=20, deadline=None)
def test_holm_by_its_definition(ps):
    names = [f"H{i}" for i in range(len(ps))]
    adjusted = holm(dict(zip(names, ps)))
    worst = 0.0
    for rank, i in enumerate(np.argsort(ps, kind="stable")):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[i]))
        assert adjusted[names[i]] == pytest.approx(worst)


def test_holm_of_nothing():
    assert holm({}) == {}
