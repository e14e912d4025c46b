"""Identities are chained from contents, nothing is made twice, and few-shot supervision never meets a gold answer."""
import json
import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from random import Random

import numpy as np
import pytest

from cotstudy import runs
from cotstudy.instances import Instance, Task
from cotstudy.decoding import Completion, Model, prompt_id
from cotstudy.procedural import FAMILIES, procedural_task
from cotstudy.runs import Condition, Store, Teacher, collect, make_corpus, run, run_cell
from cotstudy.students import Recipe

SIZES = dict(n_train=10, n_selection=4, n_test=6)


class Scripted(Model):
    "A teacher that knows the right chain for even draws and slips on odd ones."
    name, id, engine, device, dtype = "scripted", "scripted-1", "test", "cpu", "float32"

    def __init__(self):
        self.n_made = 0
        task = procedural_task("arith", **SIZES)
        self.by_prompt = {i.question: i for split in ("train", "selection", "test") for i in task.split(split)}

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


class Watched(Sequence):
    "A split that notes when somebody reads it. Only its length is free; it is no list, so nothing in C reads past these two methods."
    def __init__(self, items, name, seen):
        self._items, self._name, self._seen = list(items), name, seen

    def __len__(self): return len(self._items)

    def __getitem__(self, k):
        self._seen.append(self._name)
        return self._items[k]


READ = dict(loop=lambda s: [i for i in s], unpack=lambda s: [*s], slice=lambda s: s[:9], none=lambda s: s[:0], last=lambda s: s[-1],
            contains=lambda s: "b" in s, reverse=lambda s: list(reversed(s)), index=lambda s: s.index("a"), count=lambda s: s.count("a"),
            sort=sorted, array=lambda s: np.asarray(s, dtype=object), zip=lambda s: list(zip(s, "xy")), map=lambda s: list(map(len, s)),
            pick=lambda s: Random(0).sample(s, 1), next=lambda s: next(iter(s)))


@pytest.mark.parametrize("how", READ)
def test_a_watched_split_sees_every_way_to_read_it(how):
    seen = []
    watched = Watched(["a", "b"], "test", seen)
    assert len(watched) == 2 and not seen
    READ[how](watched)
    assert set(seen) == {"test"}


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


def test_a_recorded_teacher_answers_by_question_id(store, tmp_path, monkeypatch):
    "Two questions of the same words keep their own completions, whichever is asked first."
    monkeypatch.chdir(tmp_path)
    twins = [Instance(f"q{k}", "Ann has 3 pens. How many pens does Ann have?", "3") for k in range(3)]
    Path("old.jsonl").write_text("".join(json.dumps(dict(id=i.id, rationale=f"Said of {i.id}.", answer_text=" 3.")) + "\n" for i in twins))
    cond = condition(method="greedy_cot", n_rationales=1, teacher=Teacher(model="recorded:old.jsonl", format="ho_teacher", pool=1))
    said = lambda asked: runs.teacher_draws(store, cond, procedural_task("arith", **SIZES), asked, 1, 0.0)
    for asked in (twins[:1], twins[1:2], twins):
        draws = said(asked)
        assert [t.split(".")[0].strip() for t in draws.text] == [f"Said of {i.id}" for i in asked]
        assert {p for p in draws.prompt} == {"Q: Ann has 3 pens. How many pens does Ann have?\nA: Let's think step by step."}
    assert store.ledger.count() == 3


@pytest.fixture
def server(monkeypatch):
    "An OpenAI-compatible server that knows the chain of every arith question, and slips where its seed is odd."
    if not find_spec("openai"): pytest.skip("the openai client is an extra: pip install 'cotstudy[api]'")
    knows, asked, lock = Scripted(), [], threading.Lock()

    class Answer(BaseHTTPRequestHandler):
        def log_message(self, *args): pass

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock: asked.append(dict(body, key=self.headers["authorization"]))
            i = next((i for q, i in knows.by_prompt.items() if q in body["prompt"]), None)
            text = str(body["seed"]) if i is None else f" It is so. So the answer is: {int(i.answer) + body['seed'] % 2}"
            data = json.dumps(dict(id="x", object="o", created=0, model="m", choices=[dict(index=0, finish_reason="stop", text=text)],
                                   usage=dict(prompt_tokens=30, completion_tokens=10, total_tokens=40))).encode()
            self.send_response(200)
            for k, v in (("content-type", "application/json"), ("content-length", str(len(data)))): self.send_header(k, v)
            self.end_headers()
            self.wfile.write(data)

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{http.server_port}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-written")
    yield asked
    http.shutdown()


def api(name="api:desk", **changes): return condition(teacher=Teacher(model=name, pool=4, max_tok=60), **dict(n_rationales=4) | changes)


def test_a_condition_whose_teacher_is_behind_an_address(store, server, tmp_path):
    frame = run_cell("s", "c", [api(), api(method="label_only", supervision="few_shot", labels="vote")], store)
    assert frame.error.isna().all() and frame.n_chains.notna().all() and len(server) == 3 + 4 * SIZES["n_train"]  # the probe, and each draw once
    assert {a["key"] for a in server} == {"Bearer sk-never-written"} and {a["temperature"] for a in server} == {1.0}
    draws = store.ledger.read(columns=["model", "engine", "model_id", "n_tok"])
    teachers = draws[draws.engine == "openai"]
    assert len(teachers) == 40 and {*teachers.model} == {"api:desk"} and {*teachers.n_tok} == {10} and all(teachers.model_id.str.contains("127.0.0.1"))
    made = len(server)
    again = run_cell("s", "c2", [api(), api(n_rationales=2, filters=())], Store(store.folder))  # another process
    assert len(server) == made and again.corpus_id.iloc[0] == frame.corpus_id.iloc[0] != again.corpus_id.iloc[1]
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 10 and not [p for p in files if b"sk-never-written" in p.read_bytes()]


def test_a_budget_in_the_name_holds_for_the_whole_store(store, server):
    with pytest.raises(RuntimeError, match="OverBudget.*the budget is 1,000"): run_cell("s", "c", [api("api:desk?tokens=1000")], store)
    spent = 40 * len(server)
    assert 0 < spent <= 1000 and store.ledger.count() > 0
    with pytest.raises(RuntimeError, match="OverBudget"): run_cell("s", "c", [api("api:desk?tokens=1000")], Store(store.folder))  # another process, the same book
    assert 40 * len(server) <= 1000
    book = json.loads(next((store.folder / "budgets").glob("*.json")).read_text())
    assert book == [30 * len(server), 10 * len(server), 0, 0]
    assert run_cell("s", "c", [api("api:desk?tokens=100000")], Store(store.folder)).error.isna().all()
    assert len(server) < 4 * SIZES["n_train"] + 15  # what was drawn before was not drawn again


def test_what_runs_elsewhere_is_asked_but_not_trained(store, server):
    row, items = run(Condition(task="arith", task_args=SIZES, method="zero_shot_cot", student="api:desk"), store)
    assert row["n"] == SIZES["n_test"] and row["accuracy"] > 0 and items.parsed.all()
    for student in ("api:desk", "recorded:x", "vllm:x"):
        with pytest.raises(ValueError, match="no weights here to train"): store.fresh(student)


@pytest.mark.parametrize("name, said", [("api:", "expected api:MODEL"), ("api:m?tokens=many", "cannot be read"), ("api:m?money=5", "needs a price"),
                                        ("api:m?api_key=sk", "only read from the environment"), ("api:m?chat=maybe", "cannot be read"), ("api:m?dialect", "cannot be read"), ("api:m?dialect=french", "cannot be read")])
def test_names_of_servers_are_checked_before_anything_is_asked(name, said):
    with pytest.raises(ValueError, match=re.escape(said)): api(name)
