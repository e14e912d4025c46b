"""One's own questions become a corpus, a student and a number; what passes between the steps is complete and comes back the same."""
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cotstudy import corpora, models, steps as w
from cotstudy.conditions import Condition, Teacher
from cotstudy.decoding import Decoding, prompt_id
from cotstudy.recorded import recorded
from cotstudy.results import run_cell
from cotstudy.runs import Store
from cotstudy.servers import budget
from cotstudy.students import Recipe
from cotstudy.tasks import load as load_task
from desk import SMALL, Scripted, cotstudy, hold, sampled, scripted


# --- the whole way

def test_own_questions_end_to_end(desk):
    path, rows = sampled(desk)
    task = load_task("pens.jsonl")
    assert {r["instance"] for r in rows} == {i.id for i in task.split("train")} and len(rows) == 4 * len(task.split("train"))
    assert all(r["correct"] == (r["draw_index"] % 2 == 0) for r in rows)
    assert all(r["teacher"] == "scripted" and r["split"] == "train" and r["temperature"] == 1.0 and r["n_tok"]
               and r["logprob"] == pytest.approx(-0.1) for r in rows)
    made = w.distil(path, "scratch/0.1m", "student", filters=["correct", "sample:1"], store=desk, **SMALL)
    assert made["n_completions"] == made["n_questions"] == len(task.split("train"))
    result, items = w.evaluate("student", "pens.jsonl", max_tok=12, store=desk)
    assert result["n"] == len(task.split("test")) == len(items)
    assert result["n_correct"] == items.correct.sum() and result["lo"] - 1e-9 <= result["accuracy"] <= result["hi"]
    assert result["format"] == "cotstudy" and result["n_truncated"] == items.truncated.sum()

    from transformers import AutoModelForCausalLM, AutoTokenizer
    net, tokenizer = AutoModelForCausalLM.from_pretrained("student"), AutoTokenizer.from_pretrained("student")
    assert net.num_parameters() > 50_000 and len(tokenizer) <= net.config.vocab_size
    assert json.loads(Path("student/train.json").read_text())["step"] == 4


def test_a_broken_sampling_goes_on_and_more_draws_cost_the_difference(desk):
    teacher = scripted(desk)
    n = len(load_task("pens.jsonl").split("train"))
    teacher.n_left = 5
    with pytest.raises(ConnectionError):
        sampled(desk, n=2)
    assert not Path("corpus.jsonl").exists() and desk.ledger.count() == 5
    teacher.n_left = 10**9
    first = sampled(desk, n=2)[1]
    assert teacher.n_made == 2 * n
    again = sampled(desk, n=3)[1]
    assert teacher.n_made == 3 * n and [r for r in again if r["draw_index"] < 2] == first


def test_a_broken_training_ends_in_the_same_weights(desk):
    path, _ = sampled(desk)
    w.distil(path, "scratch/0.1m", "whole", store=desk, **SMALL)

    def hang_up(step, steps, loss):
        if step == 2:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        w.distil(path, "scratch/0.1m", "broken", store=desk, progress=hang_up, **SMALL)
    assert not Path("broken/train.json").exists()
    w.distil(path, "scratch/0.1m", "broken", store=desk, **SMALL)
    assert Path("whole/model.safetensors").read_bytes() == Path("broken/model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="another folder"):
        w.distil(path, "scratch/0.1m", "broken", store=desk, **SMALL | dict(seed=2))


def test_labels_do_not_depend_on_what_the_teacher_got_right(desk):
    path, rows = sampled(desk, n=2)
    corpora.write_corpus([r | dict(correct=r["correct"] and k < 4) for k, r in enumerate(rows)], "few.jsonl")
    n = len({r["instance"] for r in rows})
    assert w.distil("few.jsonl", "scratch/0.1m", "l", method="label", store=desk, **SMALL)["n_completions"] == n
    assert w.distil("few.jsonl", "scratch/0.1m", "c", store=desk, **SMALL)["n_questions"] < n
    assert w.distil("few.jsonl", "scratch/0.1m", "d", filters=["correct"], method="label", store=desk, **SMALL)["n_questions"] < n


@pytest.mark.parametrize("rule", ["gold", "vote"])
def test_checkpoints_are_scored_on_the_task_of_the_corpus(desk, rule):
    path, _ = sampled(desk, n=2, max_tok=100)
    w.distil(path, "scratch/0.1m", "s", store=desk, checkpoint=rule, score_every=2, max_student_tok=6, **SMALL)
    assert [s for s, _ in json.loads(Path("s/train.json").read_text())["scores"]] == [2, 4]
    corpora.write_corpus([r | dict(task=None) for r in corpora.read_corpus(path)], "nameless.jsonl")
    corpora.write_corpus([r | dict(split="selection") for r in corpora.read_corpus(path)], "chosen.jsonl")
    with pytest.raises(ValueError, match="of the selection split, on which checkpoint"):
        w.distil("chosen.jsonl", "scratch/0.1m", "u", store=desk, checkpoint=rule, **SMALL)
    with pytest.raises(ValueError, match="checkpoint='last'"):
        w.distil("nameless.jsonl", "scratch/0.1m", "t", store=desk, checkpoint=rule, **SMALL)


# --- evaluate, show, ask

@pytest.fixture
def student(desk):
    path, _ = sampled(desk, n=2)
    w.distil(path, "scratch/0.1m", "student", store=desk, **SMALL)
    return desk


def test_a_student_is_asked_as_it_was_taught(student):
    w.distil("corpus.jsonl", "scratch/0.1m", "other", format="ho", store=student, **SMALL)
    assert w.evaluate("other", "pens.jsonl", n_items=2, max_tok=4, store=student)[0]["format"] == "ho"
    with pytest.raises(ValueError, match="trained on"):
        w.evaluate("other", "pens.jsonl", format="cotstudy", n_items=2, max_tok=4, store=student)
    w.distil("corpus.jsonl", "scratch/0.1m", "label", method="label", store=student, **SMALL)
    assert w.evaluate("label", "pens.jsonl", n_items=2, max_tok=4, store=student)[0]["method"] == "label"


def test_a_vote_counts_its_paths(student):
    result, items = w.evaluate("student", "pens.jsonl", decoding="vote", n_paths=3, n_items=2, max_tok=4, store=student)
    assert result["n"] == 2 and result["n_paths"] == 3 and len(items) == 6
    for name in ("items.jsonl", "items.csv", "items.parquet"):
        w.write_items(items, name)
    assert len(pd.read_parquet("items.parquet")) == len(Path("items.jsonl").read_text().splitlines()) == len(pd.read_csv("items.csv")) == 6


def test_show_gives_the_words_behind_the_items(desk):
    shown = w.show(model="scripted", task="pens.jsonl", store=desk, n_each=2)
    assert shown["point"]["accuracy"] == 1.0 and len(shown["right"]) == 2 and not shown["wrong"]
    assert all(e["text"].endswith(f": {e['prediction']}") and e["prediction"] == e["gold"]
               and e["rationale"] in e["text"] for e in shown["right"])
    vote = w.show(model="scripted", task="pens.jsonl", store=desk, decoding="vote", n_paths=2)
    assert vote["right"] and vote["wrong"] and all(e["path"] == 1 and e["text"].endswith(f": {int(e['gold']) + 1}") for e in vote["wrong"])
    page = w.side_by_side(vote, 90)
    assert max(map(len, page.splitlines())) <= 90 and "RIGHT" in page and f"gold: {vote['wrong'][0]['gold']}" in page


def test_show_finds_a_point_of_a_study(desk):
    base = Condition(task="pens.jsonl", method="cot", n_rationales=2, teacher=Teacher(model="scripted", pool=2, max_tok=200),
                     student="scratch/0.1m",
                     recipe=Recipe(steps=2, batch=4), max_student_tok=8)
    run_cell("s", "c", [base, base.with_(seed=1), base.with_(method="zero_shot_cot", student="scripted", max_student_tok=64)], desk)
    with pytest.raises(ValueError, match="2 points .*seed: 0, 1"):
        w.show("s", dict(method="cot"), store=desk)
    shown = w.show("s", dict(method="cot", seed="1", n_rationales="2"), store=desk)
    assert shown["point"]["seed"] == 1 and shown["stored"] and not shown["right"] and len(shown["wrong"]) == 3
    teacher = w.show("s", dict(student="scripted"), store=desk)
    assert teacher["right"][0]["text"].endswith(f": {teacher['right'][0]['gold']}")
    for where, said in ((dict(sede="1"), "no column"), (dict(seed="7"), "it is 0, 1")):
        with pytest.raises((ValueError, KeyError), match=said):
            w.show("s", where, store=desk)
    elsewhere = w.show("s", dict(method="cot", seed="1"), store=Store("empty"))
    assert not elsewhere["stored"] and elsewhere["wrong"][0]["text"] is None and "not stored here" in w.side_by_side(elsewhere)


def test_show_reads_the_texts_that_the_number_was_read_from(desk):
    "Draws of other decodings, of more paths and of other limits are in the same ledger."
    for n in (1, 4): w.evaluate("scripted", "pens.jsonl", decoding="vote", n_paths=n, temperature=0.7, store=desk)
    w.evaluate("scripted", "pens.jsonl", decoding="vote", n_paths=3, temperature=0.2, store=desk)
    for how in (dict(), dict(decoding="vote", n_paths=2, temperature=0.7), dict(decoding="vote", n_paths=3, temperature=0.2)):
        shown = w.show(model="scripted", task="pens.jsonl", store=desk, **how)
        seen = shown["right"] + shown["wrong"]
        assert len(seen) >= 3 and all(e["text"].endswith(f": {e['prediction']}") for e in seen)
        assert bool(shown["wrong"]) == bool(how) and {e["path"] for e in shown["right"]} == {0}


def test_ask(desk):
    said, = w.ask("scripted", "3 pens and 2", store=desk)
    assert said["rationale"] == "Ann has 3 + 2 = 5 pens." and said["answer_text"] == "5"
    assert [s["answer_text"] for s in w.ask("scripted", "3 pens and 2", n=3, temperature=1.0, store=desk)] == ["5", "6", "5"]
    assert w.ask("scripted", "3 pens and 2", label=True, store=desk)[0]["rationale"] is None
    with pytest.raises(ValueError, match="temperature"):
        w.ask("scripted", "3 pens and 2", n=2, store=desk)


# --- chat

TEMPLATE = "{{ bos_token }}{% for m in messages %}" \
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


def polite(folder, template=TEMPLATE, end="<|end|>"):
    "A small model whose tokenizer has a chat template and puts a BOS before everything."
    from tokenizers import Tokenizer, decoders, models as parts, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    special = ["<bos>", "<|end|>", "<|user|>", "<|assistant|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok = Tokenizer(parts.BPE({c: i for i, c in enumerate(special + alphabet)}, []))
    tok.add_special_tokens(special)
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tok.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<bos>", eos_token=end, pad_token=end, chat_template=template)
    models.scratch("0.1m", tokenizer).save(folder)
    return folder


@pytest.mark.parametrize("template", [TEMPLATE, TEMPLATE.replace("{{ bos_token }}", "")])
def test_the_template_alone_writes_special_tokens(tmp_path, template):
    lm = models.load(polite(tmp_path / "m", template))
    text = lm.tokenizer.decode(lm.as_chat().prompt_ids("How many?"))
    assert text == ("<bos>" if "bos" in template else "") + "<|user|>How many?<|end|><|assistant|>"
    assert lm.tokenizer.decode(lm.prompt_ids("How many?")) == "<bos>How many?" and not lm.chat
    assert lm.as_chat().as_chat().id == lm.as_chat().id != lm.id
    # asked in both ways, one ledger keeps the draws apart
    assert prompt_id(lm, "Q", Decoding()) != prompt_id(lm.as_chat(), "Q", Decoding())


def test_a_chat_student_end_to_end(desk):
    polite("tuned")
    path, _ = sampled(desk, n=2)
    w.distil(path, "tuned", "student", format="chat", store=desk, **SMALL)
    result, items = w.evaluate("student", "pens.jsonl", n_items=2, max_tok=8, store=desk)
    assert result["format"] == "chat" and result["model_id"].endswith("/chat")
    assert w.show(model="student", task="pens.jsonl", n_items=2, max_tok=8, store=desk)["stored"]
    stored = desk.ledger.read(["prompt", "model_id"])
    assert any(m.endswith("/chat") and p.endswith("<answer>") for p, m in zip(stored.prompt, stored.model_id))
    assert len(w.ask("student", "How many?", max_tok=4, store=desk)) == 1
    cond = Condition(task="pens.jsonl", method="cot", n_rationales=1, teacher=Teacher(model="scripted", pool=2, max_tok=200),
                     student="tuned", format="chat",
                     recipe=Recipe(steps=2, batch=4), max_student_tok=8, n_items=2)
    rows = run_cell("chat", "c", [cond], desk)
    assert rows.model_id.iloc[0].endswith("/chat")


def test_a_model_without_a_template_cannot_chat(desk):
    with pytest.raises(ValueError, match="no chat template"):
        w.sample("pens.jsonl", "scratch/0.1m", n=1, format="chat", store=desk)
    with pytest.raises(ValueError, match="no chat template"):
        w.ask("scratch/0.1m", "How many?", format="chat", store=desk)


class Thinking(Scripted):
    "An instruction-tuned teacher that thinks first."
    chat = True

    def say(self, a, b, c):
        return f"<think>\nSo the answer is: {c + 100}? No.\n</think>\n\nAnn has {a} + {b} = {c} pens.\nSo the answer is: {c}"


def test_a_thinking_teacher_is_read_for_what_it_says_or_for_what_it_thinks(desk):
    hold(desk, Thinking())
    n = len(load_task("pens.jsonl").split("train"))
    said = sampled(desk, n=1, format="chat")[1]
    assert len(said) == n > 0
    assert all(r["correct"] and "100" not in r["rationale"] and r["rationale"].startswith("Ann has") for r in said)
    thought = sampled(desk, n=1, format="chat_think")[1]
    assert len(thought) == n
    assert all(r["correct"] and r["rationale"].endswith("No.") for r in thought)


# --- recorded teachers

def test_recorded_completions_of_own_questions(desk):
    task = load_task("pens.jsonl")
    said = [dict(id=i.id, completion_index=k, rationale=f"That makes\n\n{int(i.answer) + k}.", answer_text=f" {int(i.answer) + k}.",
                 finish_reason="stop")
            for s in ("train", "test") for i in task.split(s) for k in range(2)]
    Path("old.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said + [dict(said[0], id="stranger")]))
    rows = w.import_recorded("old.jsonl", "pens.jsonl", store=desk)
    assert len(rows) == len(said) == desk.ledger.count() > 0 and all(r["correct"] == (r["draw_index"] == 0) for r in rows)
    assert {r["engine"] for r in rows} == {"recorded"} and {r["teacher"]
                                                            for r in rows} == {"recorded:old.jsonl"} and all(r["temperature"] is None
                                                                    for r in rows)
    assert {(r["instance"], r["draw_index"]): r["rationale"] for r in rows} == {(r["id"],
                                                                                 r["completion_index"]): r["rationale"] for r in said}
    path = corpora.write_corpus(rows, "old_corpus.jsonl")
    with pytest.raises(ValueError, match="test split"):
        w.distil(path, "scratch/0.1m", "s", store=desk, **SMALL)
    assert w.distil(path, "scratch/0.1m", "s", split="train", store=desk, **SMALL)["n_completions"] == len(task.split("train"))
    with pytest.raises(KeyError, match="--task"):
        w.import_recorded("old.jsonl", store=desk)
    with pytest.raises(ValueError, match="has an id"):
        w.import_recorded("old.jsonl", "arith", store=desk)


@pytest.mark.parametrize("name, task, splits", [
    ("multiarith__zero_shot_cot", "multiarith", {"train", "selection", "test"}), ("quarel_test__gpt3_mario", "quarel:official_test",
                                                                                  {"test"}),
    ("aqua__zero_shot", "aqua_heldout", {"test"})])
def test_recorded_files_keep_every_completion(desk, data_dir, name, task, splits):
    rows, table = w.import_recorded(name, store=desk), recorded(name)
    assert len(rows) > 100
    texts = {(r.instance, r.draw_index): r for r in table.itertuples()}
    assert len(rows) == len(table) == len(texts) and {r["task"] for r in rows} == {task} and {r["split"] for r in rows} == splits
    for r in rows:  # also where two questions have the same words
        said = texts[r["instance"], r["draw_index"]]
        assert all((part or "").strip() in r["text"] for part in (said.rationale, said.answer_text)) and r["prompt"] == (said.prompt
                or r["prompt"])
        assert r["question"] == (said.question or r["question"]) and r["recorded_sha256"] == table.attrs["sha256"]
    with pytest.raises(ValueError, match="test split"):
        corpora.rows_to_train_on(rows, None)


def test_recorded_files_find_their_task_by_their_ids(desk, data_dir, tmp_path):
    said = [dict(id=f"strategy_qa-{k}", rationale="So it is.", prediction="yes", gold="yes") for k in range(9)] + [dict(id="stranger-1",
            rationale="No.")]
    (path := tmp_path / "strategyqa_train__somebody.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said))
    assert {r["task"] for r in w.import_recorded(path, store=desk)} == {"strategy_qa"}
    facts = json.loads(cotstudy("import-recorded", path, "--out", tmp_path / "c.jsonl", "--json").stdout)
    assert (facts["n_rows"], facts["n_of_unknown_questions"], facts["task"]) == (9, 1, "strategy_qa")


@pytest.mark.parametrize("name", ["date_understanding:ho", "tracking_shuffled_objects:ho", "date_understanding"])
def test_letters_are_read_with_the_options_that_were_asked(desk, data_dir, tmp_path, name):
    task, base = load_task(name), name.split(":")[0]
    said = [dict(id=i.id, question=i.question, rationale="So it is.", answer_text=f" ({i.answer})",
                 gold=i.answer) for s in task.splits.values() for i in s]
    (path := tmp_path / f"{base}__ho_zero_shot_cot.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said))
    rows = w.import_recorded(path, store=desk)
    assert len(rows) == len(said) > 100 and {r["task"] for r in rows} == {name} and all(r["correct"] for r in rows)
    other = {"date_understanding:ho": "date_understanding", "date_understanding": "date_understanding:ho"}.get(name)
    if other is None: return  # both list these options in one order
    with pytest.raises(ValueError, match="letters mean something else; name the rendering"): w.import_recorded(path, other, store=desk)
    with pytest.raises(ValueError, match="letters mean something else"): w.sample(other, f"recorded:{path}", 1, store=desk)


def test_explanations_of_a_known_answer_have_it_only_when_told(desk, data_dir, tmp_path):
    said = [dict(id=i.id, rationale="Because of that.", gold=i.answer) for i in load_task("openbookqa").split("train")[:9]]
    (path := tmp_path / "why.jsonl").write_text("".join(json.dumps(r) + "\n" for r in said))
    blind, told = w.import_recorded(path, store=desk), w.import_recorded(path, conditioned=True, store=desk)
    assert len(blind) == len(told) == 9 and {bool(r["answer"] or r["correct"]) for r in blind} == {False}
    assert {(r["correct"], r["conditioned"], r["answer"] == r["gold"]) for r in told} == {(True, True, True)}


# --- a teacher behind an address

@pytest.fixture
def address():
    "A server that speaks the protocol, adds what it is asked to add, and slips where its seed is odd."
    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = body["messages"][0]["content"] if "messages" in body else body["prompt"]
            found = [int(x) for x in re.findall(r"\d+", prompt)][-2:]
            text = str(body["seed"]) if len(found) < 2 else f" That is {sum(found)}. So the answer is: {sum(found) + body['seed'] % 2}"
            said = dict(message=dict(role="assistant", content=text,
                                     reasoning_content="So the answer is: 999")) if "messages" in body else dict(text=text)
            data = json.dumps(dict(id="1", object="x", created=1, model="m", choices=[dict(index=0, finish_reason="stop", **said)],
                                   usage=dict(prompt_tokens=40, completion_tokens=7, total_tokens=47))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args): pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


@pytest.mark.parametrize("fmt", ["cotstudy", "chat"])
def test_a_corpus_from_a_server(desk, address, fmt):
    args = ["sample", "--task", "pens.jsonl", "--teacher", "api:toy", "--base-url", address, "--format", fmt, "--n", 3, "--max-tok", 20,
            "--out", "c.jsonl", "--json"]
    poor = cotstudy(*args, "--budget-tok", 420)
    assert poor.exit_code == 1 and "budget" in poor.stderr and not Path("c.jsonl").exists()
    some = Store().ledger.count()
    assert 0 < some
    facts = json.loads(cotstudy(*args).stdout)
    rows = corpora.read_corpus("c.jsonl")
    assert 0 < facts["n_rows"] == len(rows) == Store().ledger.count() > some and 0 < facts["accuracy"] < 1 and facts["n_unparsed"] == 0
    assert all("999" not in r["rationale"] and r["engine"] == "openai" and r["n_tok"] == 7 for r in rows)


@pytest.mark.parametrize("price, said", [("cheap", "expected input,output"), ("1", "expected input,output"), ("nan,1",
        "expected input,output"), ("-1,1", "expected input,output"), ("", "needs a price")])
def test_a_budget_in_money_needs_a_price(price, said):
    assert budget(money=5, price="0.15,0.60").cost(10**6, 10**6) == pytest.approx(0.75)
    with pytest.raises(ValueError, match=said):
        budget(money=5, price=price)


def test_items_of_another_evaluation_are_left_alone(tmp_path):
    items = pd.DataFrame(dict(eval_id=["a", "a"], instance=["q", "r"], path=[0, 0], prediction=["5", None]))
    for name in ("i.jsonl", "i.csv", "i.parquet"):
        for _ in range(2): w.write_items(items, tmp_path / name)
        with pytest.raises(ValueError, match="of another evaluation"): w.write_items(items.assign(eval_id="b"), tmp_path / name)


def test_a_vote_is_of_the_teacher_that_wrote_the_corpus(desk, monkeypatch):
    path, rows = sampled(desk, n=2)
    vote = SMALL | dict(checkpoint="vote", score_every=2)
    corpora.write_corpus([r | dict(teacher_id="another") for r in rows], "other.jsonl")
    with pytest.raises(ValueError, match="'scripted', which is .* now, and the corpus was written by another"):
        w.distil("other.jsonl", "scratch/0.1m", "s", store=desk, **vote)
    corpora.write_corpus([r | dict(teacher="api:m") for r in rows], "paid.jsonl")
    with pytest.raises(ValueError, match="may cost money, and a corpus knows no address"):
        w.distil("paid.jsonl", "scratch/0.1m", "s", store=desk, **vote)
    assert not Path("s").exists() and w.distil(path, "scratch/0.1m", "s", store=desk, **vote)


def test_what_is_of_a_vote_is_refused_for_greedy_answers(desk):
    for more in (dict(n_paths=9), dict(temperature=0.3)):
        with pytest.raises(ValueError, match="are of a vote, and decoding is 'greedy'; add decoding='vote'"):
            w.evaluate("pocket/xs", "arith", store=desk, **more)


@pytest.mark.parametrize("given, said", [
    (["--teacher", "pocket/xs", "--budget-tok", "1", "--base-url", "http://x"], "--base-url, --budget-tok: these are of a model behind"),
    (["--teacher", "pocket/xs", "--concurrency", "8"], "--concurrency: these are of"),
    (["--teacher", "api:m", "--unseen-tok", "5"], "say how a budget is counted, and none is given"),
    (["--teacher", "api:m", "--price", "1,2"], "say how a budget is counted"),
    (["--teacher", "api:m?dialect=vllm", "--dialect", "transformers"], "has a dialect, and another was given"),
    (["--teacher", "api:m?concurrency=2", "--concurrency", "4"], "has a concurrency, and another was given"),
    (["--teacher", "api:m?dialect=vllm", "--dialect", "plain"], "has a dialect, and another was given")])
def test_options_that_would_do_nothing_are_refused(desk, given, said, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    told = cotstudy("sample", "--task", "arith", "--out", "c.jsonl", "--n-questions", "2", *given)
    assert told.exit_code == 1 and said in told.output, told.output


def test_a_corpus_whose_question_holds_a_control_token_trains_nobody(desk):
    path, rows = sampled(desk, n=1)
    corpora.write_corpus([r | dict(question=r["question"] + " <eos> ok?", prompt=r["prompt"] + " <eos> ok?") for r in rows], "marked.jsonl")
    with pytest.raises(ValueError, match="holds '<eos>', which is a special token"):
        w.distil("marked.jsonl", "scratch/0.1m", "s", store=desk, **SMALL)


def test_a_text_is_of_the_very_decoding_that_its_answer_was_read_from(desk, monkeypatch):
    "Draws under another top-k at the same temperature are another list, and not what was said here."
    how = dict(decoding="vote", n_paths=2, temperature=0.7)
    w.evaluate("scripted", "pens.jsonl", store=desk, **how)
    monkeypatch.setattr(Scripted, "say", lambda self, a, b, c: f" Nobody knows. So the answer is: {c + 100}")
    for k in (2, 3): w.sample("pens.jsonl", "scripted", n=2, split="test", temperature=0.7, top_k=k, store=desk, format="cotstudy")
    shown = w.show(model="scripted", task="pens.jsonl", store=desk, **how)
    seen = shown["right"] + shown["wrong"]
    assert len(seen) >= 3 and all(e["text"].endswith(f": {e['prediction']}") for e in seen)


def test_the_kinds_of_numbers_that_notebooks_have(desk):
    sampled(desk)
    said = w.distil("corpus.jsonl", "scratch/0.1m", "np", store=desk, steps=np.int64(2), lr=np.float64(1e-3), batch=np.int32(4))
    assert said["steps"] == 2
    for wrong, what in ((dict(filters="correct"), "expected a list of names"), (dict(steps=2.5), "recipe: steps: .*got 2.5"),
                        (dict(steps="two"), "recipe: steps: .*got 'two'")):
        with pytest.raises(ValueError, match=what) as e: w.distil("corpus.jsonl", "scratch/0.1m", "other", store=desk, **wrong)
        assert "\n" not in str(e.value)
    with pytest.raises(ValueError, match="is a list, expected one text"): w.ask("scripted", ["3 pens and 2"], store=desk)


def test_reported_checkpoints_are_scored_on_what_is_reported(desk):
    sampled(desk)
    for rule, split in (("gold", "selection"), ("reported", "test")):
        training = w.Training(w.method_of("cot", True), w.format_named("cotstudy"), Recipe(checkpoint=rule, score_every=1), None)
        assert w.corpus_judge(desk, corpora.read_corpus("corpus.jsonl"), training, 16).exam.split == split
