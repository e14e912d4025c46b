"""Methods beyond the usual: what is taken from a rationale and what stays, how answers are read without writing, who may teach whom."""
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st

from cotstudy.conditions import Condition, Teacher, base_of
from cotstudy.filters import stream
from cotstudy.measures import Said, error_of, follows, scores
from cotstudy.methods import METHODS, dots, falsify, filled, method_named, ranked, read_after, reason_after, shuffled
from cotstudy.openers import open_model
from cotstudy.procedural import FAMILIES, procedural_task
from cotstudy.prompts import FORMATS, Parsed
from cotstudy.runs import Store, plan_of, run
from cotstudy.sampling import logprobs

TEXT = st.from_regex(r"[a-z]{1,6}( [a-z0-9]{1,6}){0,6}\.", fullmatch=True)
SMALL = {"task_args.n_train": 6, "task_args.n_selection": 3, "task_args.n_test": 4, "recipe.steps": 2, "recipe.batch": 4, "teacher.pool": 2,
         "teacher.max_tok": 40, "max_student_tok": 40}


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=lambda f: f.name)
@settings(max_examples=15)
@given(rationale=TEXT, answer=st.sampled_from(["5", "yes", "B", "n k"]))
def test_an_answer_before_its_reason_is_read_back(fmt, rationale, answer):
    assert read_after(fmt, reason_after(fmt, rationale, answer)) == Parsed(rationale, answer)


@given(sizes=st.lists(st.integers(1, 4), min_size=3, max_size=8), seed=st.integers(0, 5))
@settings(max_examples=50)
def test_shuffled_chains_are_all_there_and_none_is_at_home(sizes, seed):
    rows = pd.DataFrame([dict(instance=f"q{i}", rationale=f"q{i} {k}", told=str(i)) for i, n in enumerate(sizes) for k in range(n)])
    if len(rows) < 2 * max(sizes):
        with pytest.raises(ValueError, match="more questions"): shuffled(rows, seed, len)
        return
    moved = shuffled(rows, seed, len)
    assert sorted(moved.rationale) == sorted(rows.rationale) and moved.told.equals(rows.told)
    assert all(r.split()[0] != i for i, r in zip(moved.instance, moved.rationale))
    assert moved.equals(shuffled(rows, seed, len))


def test_dots_are_as_many_tokens_as_the_student_would_have_read():
    lm = open_model("pocket/xs")
    count = lambda text: len(lm.completion_ids(" " + text))
    family, task = FAMILIES["arith"], procedural_task("arith", 4, 0, 0)
    rows = pd.DataFrame([dict(instance=i.id, rationale=family.rationale(i, Random(0))) for i in task.split("train")])
    told = filled(rows, 0, count)
    assert [count(a) for a in rows.rationale] == [count(b) for b in told.rationale] and set("".join(told.rationale)) == {"."}
    assert dots(7, lambda text: (len(text) + 1) // 2) in ("." * 13, "." * 14)  # a tokenizer that takes dots in pairs


@given(st.integers(0, 200))
@settings(max_examples=60)
def test_a_falsified_step_says_something_else_and_all_before_it_stays(seed):
    task = procedural_task("arith", 3, 0, 0, seed=seed % 5)
    chain = FAMILIES["arith"].rationale(task.split("train")[seed % 3], Random(seed))
    head = falsify(chain, stream("test", seed))
    same = next(k for k, (a, b) in enumerate(zip(head, chain)) if a != b)
    assert len(chain[:same].split(". ")) == len(head.split(". ")), "only the last sentence of what is left differs"
    assert falsify("So it is.", stream("test", seed)) is None


def test_ranking_picks_the_likeliest_answer(tmp_path):
    store = Store(tmp_path)
    cond = base_of("coin", "pocket/xs", SMALL | dict(method="few_shot_rank", n_exemplars=1))
    plan = plan_of(store, cond)
    voice, asked = plan.exam.of(plan.start.model).voice, plan.exam.asked
    assert voice.labels == ("yes", "no")
    found = ranked(store.ledger, voice, asked, 1)
    for said, (_, prompt) in zip(found.text, voice.prompts(asked)):
        each = {a: logprobs(voice.model, prompt, [f" So the answer is: {a}"], True)[0].mean() for a in voice.labels}
        assert said.endswith(max(each, key=each.get))
    row, items = run(cond, store)
    assert row["n_unparsed"] == 0 and set(items.prediction) <= {"yes", "no"} and store.ledger.count() == 0
    with pytest.raises(ValueError, match="no closed set"): run(cond.with_(task="arith"), store)
    with pytest.raises(ValueError, match="ranked once"): ranked(store.ledger, voice, asked, 2)


def test_a_student_teaches_nobody_but_itself():
    with pytest.raises(ValueError, match="its own chains"):
        Condition(task="arith", method="self_taught", student="pocket/s", teacher=Teacher(model="pocket/teacher"))
    mine = Condition(task="arith", method="self_taught", student="pocket/s", teacher=Teacher(model="pocket/s"))
    assert mine.teaching == "sampled"


def test_nobody_is_asked_for_chains_that_the_student_writes_itself(tmp_path):
    store = Store(tmp_path)
    row, items = run(base_of("arith", "pocket/xs", SMALL | dict(method="on_policy")), store)
    drawn = store.ledger.read(["model"])
    assert set(drawn.model.astype(str)) == {str(store.folder / "students" / row["student_id"])} or len(drawn) == 4
    assert row["n_steps"] == 2 and row["n_taught"] == 6 and len(items) == 4


def test_distribution_of_a_teacher_that_writes_otherwise_is_refused(tmp_path):
    with pytest.raises(ValueError, match="one format"):
        run(base_of("arith", "pocket/xs", SMALL | {"method": "on_policy", "teacher.format": "ho"}), Store(tmp_path))


def test_passes_take_the_steps_of_their_corpus_and_peeking_looks_at_the_reported_questions(tmp_path):
    store = Store(tmp_path)
    base = base_of("arith", "pocket/xs", SMALL | dict(method="label_only"))
    row, _ = run(base.with_(**{"recipe.epochs": 3.0}), store)
    assert row["n_steps"] == 5  # 3 passes over 6 completions, 4 a step
    plans = {c: plan_of(store, base.with_(**{"recipe.checkpoint": c})).judge for c in ("last", "gold", "reported")}
    assert plans["last"] is None and plans["gold"].exam.split == "selection" and plans["reported"].exam.split == "test"
    with pytest.raises(ValueError, match="may not use gold"): base.with_(supervision="few_shot", **{"recipe.checkpoint": "reported"})


def test_examples_in_training_prompts_differ_from_question_to_question(tmp_path):
    store = Store(tmp_path)
    plan = plan_of(store, base_of("arith", "pocket/xs", SMALL | dict(method="metaicl", n_exemplars=2)))
    from cotstudy.runs import make_corpus
    corpus = make_corpus(store.ledger, plan.lessons, plan.exam.method, plan.exam.voice.fmt)
    shown = [e.prompt.rsplit("\n\n", 1)[0] for e in corpus.examples]
    assert len(set(shown)) > 1 and all(p.count("So the answer is:") == 2 for p in shown)
    plain = plan_of(store, base_of("arith", "pocket/xs", SMALL | dict(method="label_only")))
    bare = make_corpus(store.ledger, plain.lessons, plain.exam.method, plain.exam.voice.fmt)
    assert [e.completions for e in bare.examples] == [e.completions for e in corpus.examples]


# --- errors, and answers that follow ---

@pytest.mark.parametrize("name", ["arith", "dates", "shuffle", "letters", "coin", "facts", "strategy", "relations"])
def test_every_answer_is_right_or_one_kind_of_error(name):
    family, task = FAMILIES[name], procedural_task(name, 0, 0, 6)
    asked, rng, rows = {i.id: i for i in task.split("test")}, np.random.default_rng(0), []
    for i in asked.values():
        chain = family.rationale(i, Random(0))
        for answer in (i.answer, "nothing at all", None):
            rows.append(dict(instance=i.id, text=chain, rationale=chain, answer=answer, correct=answer == i.answer, n_tok=9))
        rows.append(rows[-2] | dict(rationale=falsify(chain, rng) or "It is so."))
    found = scores(pd.DataFrame(rows), asked, task)
    kinds = found[["error_calculation", "error_reasoning", "error_format"]].sum(axis=1)
    assert (kinds + pd.Series([r["correct"] for r in rows]) == 1).all()
    assert ("follows" in found) == (name in ("arith", "dates", "shuffle", "letters", "facts", "relations"))
    if "follows" not in found: return  # an answer that is a verdict on the last step
    assert (found.follows[::4].dropna() == 1).all() and (found.follows[1::4].dropna() == 0).all()


def test_a_slip_of_the_pen_is_told_from_a_wrong_turn():
    task = procedural_task("arith", 0, 0, 1)
    i = task.split("test")[0]
    (op, n), (a, b) = FAMILIES["arith"].steps(i)[0][0]
    word = {"+": "plus", "-": "minus", "*": "times"}[op]
    told = lambda text: error_of(i, Said(text, text, "0", False), task)
    assert told(f"{a} {word} {n} is {b + 3}.") == "calculation"
    wrong = {"+": a + n + 1, "-": a - n - 1, "*": a * (n + 1)}[op]
    assert told(f"{a} {word} {n + 1} is {wrong}.") == "reasoning"
    assert follows(i, Said("", f"{a} {word} {n} is {b + 3}.", str(b + 3), False), task) == 1


def test_every_method_is_a_whole_record():
    for m in METHODS.values():
        assert m.mode in ("cot", "label") and method_named(m.name) is m
        assert not (m.retell and not m.chains) and not (m.writes and not m.towards) and not (m.shown and not m.trained)
