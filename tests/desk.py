"""A desk to try the steps at: own questions, a teacher by script, a store of its own. Shared by the tests of corpora, steps and cli."""
import json
import re
from pathlib import Path

from typer.testing import CliRunner

from cotstudy import corpora, steps
from cotstudy.cli import app
from cotstudy.decoding import Completion, Model, prompt_id
from cotstudy.runs import Store


class Scripted(Model):
    "A teacher that is right in even draws, one too high in odd ones, and breaks off after `n_left` draws."
    name, id, engine, device, dtype = "scripted", "scripted-1", "test", "cpu", "float32"
    n_made, n_left = 0, 10**9

    def __init__(self):
        self.words = []

    def decode(self, token_ids, stop=()):
        return " ".join(self.words[t] for t in token_ids)

    def say(self, a, b, c):
        return f" Ann has {a} + {b} = {c} pens. So the answer is: {c}"

    def complete(self, requests, decoding):
        for r in requests:
            a, b = map(int, re.findall(r"\d+", r.prompt)[-2:])
            for k in r.draw_indices:
                if self.n_left <= self.n_made:
                    raise ConnectionError("the teacher hung up; run the same again")
                self.n_made += 1
                text = self.say(a, b, a + b + k % 2)
                ids = tuple(range(len(self.words), len(self.words) + len(text.split())))
                self.words.extend(text.split())
                name, logprobs = prompt_id(self, r.prompt, decoding), tuple(-0.1 for _ in ids)
                yield [Completion(r.instance, r.prompt, name, k, text, ids, logprobs, len(ids), "stop")]


def pens(a, b):
    return dict(question=f"Ann has {a} pens. Ann buys {b} more. How many pens does Ann have now?", answer=a + b)


def set_up(tmp_path, monkeypatch):
    "An empty folder with questions of one's own, and a store that knows the scripted teacher."
    monkeypatch.setenv("COTSTUDY_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.chdir(tmp_path)
    Path("pens.jsonl").write_text("".join(json.dumps(pens(a, b)) + "\n" for a in range(2, 6) for b in range(2, 7)))
    store = Store()
    hold(store, Scripted())
    return store


def sampled(store, path="corpus.jsonl", **changes):
    rows = steps.sample(**dict(task="pens.jsonl", teacher="scripted", n=4, store=store) | changes)
    return corpora.write_corpus(rows, path), rows


def hold(store, model, name="scripted"):
    "Have a store know a model by its name."
    store.models.held[name, None, 0] = (), {}, model
    return model


def scripted(store):
    return store.models.held["scripted", None, 0][-1]


SMALL = dict(steps=4, batch=4, seed=1)


def cotstudy(*args):
    result = CliRunner().invoke(app, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result
