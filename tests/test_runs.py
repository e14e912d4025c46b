"""Identities are chained from contents, nothing is made twice, and few-shot supervision never meets a gold answer."""
from dataclasses import replace

import pytest

from cotstudy import runs
from cotstudy.instances import Task
from cotstudy.models import Completion, prompt_id
from cotstudy.procedural import FAMILIES, procedural_task
from cotstudy.runs import Condition, Store, Teacher, collect, make_corpus, run, run_cell
from cotstudy.students import Recipe

SIZES = dict(n_train=10, n_selection=4, n_test=6)


class Scripted:
    "A teacher that knows the right chain for even draws and slips on odd ones."
    name, id, engine, device, dtype = "scripted", "scripted-1", "test", "cpu", "float32"

    def __init__(self):
        self.n_made = 0
        task = procedural_task("arith", **SIZES)
        self.by_prompt = {i.question: i for split in ("train", "selection", "test") for i in task.split(split)}

    def prompt_ids(self, prompt):
        return list(prompt.encode())

    def decode(self, token_ids, stop=()):
        return " ".join(self.words[t] for t in token_ids)

    words: list = []

    def complete(self, requests, decoding):
        from random import Random
        for r in requests:
            i = next(i for q, i in self.by_prompt.items() if q in r.prompt)
            done = []
            for k in r.draw_indices:
                answer = i.answer if k % 2 == 0 else str(int(i.answer) + 1)
                text = f" {FAMILIES['arith'].rationale(i, Random(k))} So the answer is: {answer}"
                ids = tuple(range(len(self.words), len(self.words) + len(text.split())))
                self.words.extend(text.split())
                self.n_made += 1
                done.append(Completion(r.instance, r.prompt, prompt_id(self, r.prompt, decoding), k, text, ids, tuple(-0.1 for _ in ids), len(ids), "stop"))
            yield done


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path / "outputs"))
    store = Store(tmp_path / "store")
    store._models["scripted", None, 0] = Scripted()
    return store


def condition(**changes):
    values = dict(task="arith", task_args=SIZES, method="cot", n_rationales=2, teacher=Teacher(model="scripted", pool=4, max_tok=200),
                  student="scratch/0.1m", recipe=Recipe(steps=3, batch=4), max_student_tok=8)
    return Condition(**values | changes)


def test_the_same_condition_is_made_once(store):
    row, items = run(condition(), store)
    made, students = store.ledger.count(), sorted((store.folder / "students").glob("*/model.safetensors"))
    stamps = [p.stat().st_mtime_ns for p in students]
    again, items_again = run(condition(), store)
    assert {k: row[k] for k in ("row_id", "corpus_id", "student_id", "eval_id", "n_correct")} == {k: again[k] for k in ("row_id", "corpus_id", "student_id", "eval_id", "n_correct")}
    assert items.equals(items_again) and store.ledger.count() == made and [p.stat().st_mtime_ns for p in students] == stamps


def test_n_is_a_view_of_the_same_draws(store):
    teacher = store._models["scripted", None, 0]
    for n in (4, 1, 2):
        make_corpus(store, condition(n_rationales=n), procedural_task("arith", **SIZES))
    assert teacher.n_made == SIZES["n_train"] * 4


def test_ids_follow_contents(store):
    task = procedural_task("arith", **SIZES)
    corpus = make_corpus(store, condition(n_rationales=4), task)
    # with all of the pool in use, the seed selects nothing: same contents, same corpus
    assert make_corpus(store, condition(n_rationales=4, seed=5), task).id == corpus.id
    assert make_corpus(store, condition(n_rationales=4, filters=("correct",)), task).id == corpus.id
    assert make_corpus(store, condition(n_rationales=4, filters=()), task).id != corpus.id
    assert make_corpus(store, condition(n_rationales=1), task).id != corpus.id
    assert make_corpus(store, condition(n_rationales=4, format="ho"), task).id != corpus.id


def test_greedy_and_vote_share_a_student(store):
    greedy, _ = run(condition(), store)
    vote, items = run(condition(decoding="vote", n_paths=3), store)
    assert greedy["student_id"] == vote["student_id"] and greedy["eval_id"] != vote["eval_id"]
    assert vote["n_paths"] == 3 and len(items) == 3 * vote["n"]


def test_correct_filter_keeps_right_chains_only(store):
    corpus = make_corpus(store, condition(n_rationales=4), procedural_task("arith", **SIZES))
    assert corpus.facts["n_drawn"] == 40 and corpus.facts["n_kept"] == 20 and corpus.facts["label_accuracy"] == 1.0
    unfiltered = make_corpus(store, condition(n_rationales=4, filters=()), procedural_task("arith", **SIZES))
    assert unfiltered.facts["label_accuracy"] == 0.5


@pytest.mark.parametrize("method", ["cot", "greedy_cot", "label_only"])
@pytest.mark.parametrize("labels", ["greedy", "vote"])
def test_few_shot_corpus_does_not_depend_on_gold(store, method, labels):
    "Change every gold answer: a corpus made without gold must not notice."
    task = procedural_task("arith", **SIZES)
    poisoned = Task(**{f: getattr(task, f) for f in ("name", "kind", "labels", "chance", "rule_key")},
                    splits={k: [replace(i, answer="-77") for i in v] for k, v in task.splits.items()})
    cond = condition(method=method, supervision="few_shot", labels=labels)
    assert make_corpus(store, cond, task).id == make_corpus(store, cond, poisoned).id
    full = condition(method=method)
    if method == "label_only":
        assert make_corpus(store, full, task).id != make_corpus(store, full, poisoned).id
    else:
        with pytest.raises(ValueError, match="no training example"):
            make_corpus(store, full, poisoned)


@pytest.mark.parametrize("bad", [dict(filters=("correct",)), dict(labels="gold"), dict(recipe=Recipe(checkpoint="gold")), dict(filters=("sample:2", "correct"))])
def test_few_shot_refuses_gold(bad):
    with pytest.raises(ValueError, match="few_shot"):
        condition(supervision="few_shot", **bad)


@pytest.mark.parametrize("bad", [dict(nrationales=3), dict(seed="1"), dict(filters=("furst:1",)), dict(n_rationales=9), dict(n_paths=4), dict(method="cott")])
def test_conditions_are_strict(bad):
    with pytest.raises(ValueError):
        condition(**bad)


@pytest.mark.parametrize("rule", ["gold", "vote"])
def test_checkpoints_are_chosen_without_the_test_split(store, rule, monkeypatch):
    task = procedural_task("arith", **SIZES)
    seen = []
    monkeypatch.setattr(runs, "load_task", lambda *a, **k: Task(**{f: getattr(task, f) for f in ("name", "kind", "labels", "chance", "rule_key")},
                                                              splits={k: Watched(v, k, seen) for k, v in task.splits.items()}))
    cond = condition(recipe=Recipe(steps=4, batch=4, checkpoint=rule, score_every=2), supervision="full" if rule == "gold" else "few_shot")
    corpus = make_corpus(store, cond, runs.load_task())
    runs.make_student(store, cond, corpus, runs.load_task())
    assert "selection" in seen and "test" not in seen


class Watched(list):
    "A split that notes when somebody reads it."
    def __init__(self, items, name, seen):
        super().__init__(items)
        self.name, self.seen = name, seen

    def __iter__(self):
        self.seen.append(self.name)
        return super().__iter__()


def test_a_failed_condition_is_a_row_without_a_value_and_is_tried_again(store, monkeypatch):
    conditions = [condition(), condition(task="no_such_task")]
    with pytest.raises(RuntimeError, match="1 of 2"):
        run_cell("s", "c", conditions, store)
    rows, items = collect("s")
    bad = rows[rows.error.notna()]
    assert len(rows) == 2 and len(bad) == 1 and bad.accuracy.isna().all() and "no_such_task" in bad.error.iloc[0]
    load = runs.load_task
    monkeypatch.setattr(runs, "load_task", lambda name, **kw: load("arith", **kw))
    assert run_cell("s", "c", conditions, store).error.isna().all()


def test_items_do_not_depend_on_order_or_on_what_was_there(tmp_path, monkeypatch, store):
    a = run_cell("one", "c", [condition(n_rationales=n) for n in (1, 2, 4)], store)
    other = Store(tmp_path / "other")
    other._models["scripted", None, 0] = Scripted()
    b = run_cell("two", "c", [condition(n_rationales=n) for n in (4, 1, 2)], other)
    ours, theirs = (f.set_index("n_rationales")[["corpus_id", "student_id", "eval_id", "n_correct"]].sort_index() for f in (a, b))
    assert ours.equals(theirs)


def test_shorter_limits_are_views(store):
    run(condition(max_student_tok=8), store)
    n = store.ledger.count()
    row, items = run(condition(max_student_tok=4), store)
    assert store.ledger.count() == n and items.n_tok.max() <= 4 and row["n_truncated"] > 0
