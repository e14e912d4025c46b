"""Procedural tasks: gold, splits and the step checker, on fresh instances."""
from random import Random
import re

import pytest
from hypothesis import assume, given, settings, strategies as st

from cotstudy.instances import KINDS, Instance
from cotstudy.procedural import FAMILIES, PLACES, WORLD, LINKS, bucket, move, procedural_task, stated_answer

names = pytest.mark.parametrize("name", sorted(FAMILIES))
seeds = st.integers(0, 10**9)

def fresh(name: str, seed: int) -> tuple[Instance, str]:
    "An instance and one of its rationales."
    f, rng = FAMILIES[name], Random(seed)
    i = f.draw(rng, **f.difficulty)
    return i, f.rationale(i, rng)

@names
@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_own_rationales_are_sound(name, seed):
    i, r = fresh(name, seed)
    for text in (r, f"{r} So the answer is: {i.answer}", f"{r} So the answer is: ({i.answer})."):
        c = FAMILIES[name].check(i, text)
        assert c.sound and c.answer_ok and not c.lucky, (text, c)

@names
@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_wrong_answer_is_found(name, seed):
    i, r = fresh(name, seed)
    c = FAMILIES[name].check(i, f"{r} So the answer is: {i.answer}x")
    assert not c.answer_ok and c.sound and c.answer == i.answer + "x"

def sentences(r: str) -> list[str]: return re.split(r"(?<=\.) ", r)

def essential(name: str, i: Instance, text: str) -> bool:
    "Whether some sentence carries a required step, as the checker reads it alone."
    f = FAMILIES[name]
    true, free = f.steps(i)
    return any(c in true for c in f.read(i, text))

@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"shuffle", "entail"}))
@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_missing_step_is_found(name, seed):
    i, r = fresh(name, seed)
    s = sentences(r)
    f = FAMILIES[name]
    true, _ = f.steps(i)
    k = next(k for k, x in enumerate(s) if essential(name, i, x))
    rest = " ".join(s[:k] + s[k + 1:])
    gone = [c for c in f.read(i, s[k]) if c in true and c not in f.read(i, rest)]
    c = f.check(i, f"{rest} So the answer is: {i.answer}")
    if gone: assert c.missing and not c.sound and c.lucky

@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_missing_swap_is_found(seed):
    f, rng = FAMILIES["shuffle"], Random(seed)
    i = f.draw(rng, swaps=(3, 4))
    s = sentences(f.rationale(i, rng))
    states = [h for _, h in i.trace[1:]]
    assume(len(set(states)) == len(states))  # a repeated state hides nothing new
    assert f.check(i, " ".join(s[:1] + s[2:])).missing

@pytest.mark.parametrize("name", ["arith", "dates", "letters", "coin", "facts", "relations"])
@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_wrong_order_is_found(name, seed):
    i, r = fresh(name, seed)
    f = FAMILIES[name]
    true, _ = f.steps(i)
    s = sentences(r)
    carry = [k for k, x in enumerate(s) if essential(name, i, x)]
    assume(len(carry) >= 2)
    a, b = carry[0], carry[1]
    assume(f.read(i, s[a]) != f.read(i, s[b]))
    s[a], s[b] = s[b], s[a]
    c = f.check(i, " ".join(s))
    assert not c.order_ok and not c.sound

@pytest.mark.parametrize("name", ["arith", "dates"])
@settings(max_examples=60, deadline=None)
@given(seed=seeds, by=st.integers(1, 5))
def test_wrong_value_is_found(name, seed, by):
    i, r = fresh(name, seed)
    m = re.search(r"((?:=|is|makes|leaves) )(\d+)(?=[ .])", r)
    assume(m is not None)
    bad = r[:m.start(2)] + str(int(m[2]) + by) + r[m.end(2):]
    c = FAMILIES[name].check(i, f"{bad} So the answer is: {i.answer}")
    assert c.n_wrong >= 1 and c.lucky

@pytest.mark.parametrize("name,a,b", [("coin", "heads", "tails"), ("sentiment", "positive", "negative"), ("sst", "positive", "negative"),
                                      ("relations", "less", "more")])
@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_flipped_word_is_found(name, a, b, seed):
    i, r = fresh(name, seed)
    m = re.search(rf"\b({a}|{b})\b", r)
    bad = r[:m.start()] + (b if m[0] == a else a) + r[m.end():]
    c = FAMILIES[name].check(i, f"{bad} So the answer is: {i.answer}")
    assert c.n_wrong >= 1 and c.lucky, bad

@names
@settings(max_examples=60, deadline=None)
@given(seed=seeds, text=st.text())
def test_checker_never_raises(name, seed, text):
    i, r = fresh(name, seed)
    c = FAMILIES[name].check(i, text)
    assert c.n_wrong <= c.n_steps and not (c.sound and not FAMILIES[name].read(i, text))
    FAMILIES[name].check(i, r[: len(text)] + text + r[len(text):])

@names
def test_tasks_are_disjoint_and_repeatable(name):
    a, b, other = (procedural_task(name, 60, 20, 60, s) for s in (3, 3, 4))
    assert a.kind in KINDS and {k: len(v) for k, v in a.splits.items()} == dict(train=60, selection=20, test=60)
    assert {k: list(v) for k, v in a.splits.items()} == {k: list(v) for k, v in b.splits.items()}
    assert a.split("test") != other.split("test")
    for x, y in (("train", "test"), ("train", "selection"), ("selection", "test")):
        assert not {i.scenario for i in a.split(x)} & {i.scenario for i in other.split(y)}, "splits must hold across seeds too"
    ids = [i.id for s in a.splits.values() for i in s]
    assert len(set(ids)) == len(ids)
    for i in a.split("test"):
        assert bucket(i.scenario) in PLACES["test"]
        assert not a.labels or i.answer in a.labels
        if i.options: assert f"({i.answer}) {i.options['ABCDE'.index(i.answer)]}" in i.question and len(set(i.options)) == len(i.options)

def test_test_split_does_not_depend_on_train_size():
    assert procedural_task("coin", 5, 5, 30).split("test") == procedural_task("coin", 80, 0, 30).split("test")

@pytest.mark.parametrize("name", ["coin", "strategy", "sentiment", "entail", "sst"])
def test_labels_are_balanced(name):
    t = procedural_task(name, 0, 0, 300)
    assert len(t.labels) >= 2
    for label in t.labels: assert abs(sum(i.answer == label for i in t.split("test")) / 300 - t.chance) < 0.05

@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_gold_by_independent_reading(seed):
    "Arithmetic and coin gold, recomputed from the words of the question alone."
    i, _ = fresh("arith", seed)
    x = None
    for s in i.question.split(". "):
        n = [int(v) for v in re.findall(r"\d+", s)]
        if not n: continue
        if x is None: x = n[0] * n[1] if "bags" in s else n[0]
        else: x += -n[0] if re.search("loses|gives|sells", s) else n[0]
    assert str(x) == i.answer
    i, _ = fresh("coin", seed)
    heads = "The coin is heads" in i.question
    heads ^= len(re.findall(r" flips\.", i.question)) % 2 == 1
    assert i.answer == ("yes" if heads == ("heads up now" in i.question or "heads up at" in i.question) else "no")

@given(day=st.integers(1, 28), month=st.integers(0, 11), days=st.integers(-20, 20))
def test_dates_agree_with_the_calendar(day, month, days):
    from datetime import date, timedelta
    d = date(2023, month + 1, day) + timedelta(days)
    assert move((day, month), days) == (d.day, d.month - 1)

def test_contrast_flips_one_word_and_the_label():
    f = FAMILIES["sentiment"]
    for seed in range(50):
        a = f.draw(Random(seed), **f.difficulty)
        b = f.contrast(a, Random(seed))
        assert a.answer != b.answer and sum(x != y for x, y in zip(a.question.split(), b.question.split())) == 1
        assert f.check(b, f.rationale(b, Random(0))).sound

def test_what_was_asked_is_checked_too():
    f = FAMILIES["coin"]
    for seed in range(20):
        i = f.draw(Random(seed))
        text = f.rationale(i, Random(seed))
        m = re.search(r"(asked is|question was) (heads|tails)", text)
        bad = text[:m.start(2)] + ("tails" if m[2] == "heads" else "heads") + text[m.end(2):]
        assert f.check(i, text).sound and f.check(i, bad).n_wrong == 1
        assert f.check(i, text.replace(m[0], "so be it")).sound, "it may be left out"

def test_world_is_closed():
    assert {r for r, _ in WORLD} > set(LINKS) and len(WORLD) > 24
    for (r, c), v in WORLD.items(): assert r not in LINKS or (v != c and ("home", v) in WORLD)

def test_errors_say_what_exists():
    with pytest.raises(KeyError, match="arith"): procedural_task("chess")
    with pytest.raises(ValueError, match="flips"): procedural_task("coin", steps=3)
    with pytest.raises(ValueError, match="fewer"): procedural_task("sst", 100000, 0, 0)

def test_stated_answer():
    assert stated_answer("x. So the answer is: (B).") == "B"
    assert stated_answer("The answer is 5\nQ: next") == "5"
    assert stated_answer("none") is None

def test_someone_elses_things_are_found():
    f = FAMILIES["arith"]
    i = Instance("", "Bob has 7 eggs. Bob finds 4 eggs. How many eggs does Bob have now?", "11", trace=((7, "+", 4, 11),))
    assert f.check(i, "Bob has 7 + 4 = 11 eggs.").sound and f.check(i, "Eve has 7 + 4 = 11 eggs.").sound  # Eve is no word of this world
    assert f.check(i, "Mia has 7 + 4 = 11 eggs. So the answer is: 11").lucky

@pytest.mark.parametrize("style, before, wrong",
                         [(0, "{a} {x} and {b} {y} swap:", "{a} {y} and {b} {x} swap:"),
                          (1, "{a} has the {x} and {b} has the {y}, so now", "{a} has the {y} and {b} has the {y}, so now"),
                          (2, "{a}: {x}, {b}: {y} ->", "{a}: {x}, {b}: {x} ->")])
def test_a_premise_that_contradicts_the_rationale_is_a_wrong_step(style, before, wrong):
    f, rng, hits = FAMILIES["shuffle"], Random(5), 0
    for _ in range(60):
        i = f.draw(rng)
        text = f.rationale(i, rng)
        held = dict(re.findall(r"(\w+) has the (\w+)", i.question.split(".")[0]))
        (a, b), _ = i.trace[1]
        x, y = held[a], held[b]
        said = before.format(a=a, b=b, x=x, y=y)
        if not text.startswith(said): continue
        hits += 1
        good, bad = (f.check(i, t) for t in (text, text.replace(said, wrong.format(a=a, b=b, x=x, y=y), 1)))
        assert good.sound and not bad.sound and bad.n_wrong == good.n_wrong + (2 if style == 0 else 1) and bad.answer_ok
    assert hits > 5
