"""Servers that fail, lie, cost money or tell too much; and one that is real."""
import email.utils
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from functools import partial
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings as hyp, strategies as st

from cotstudy.decoding import Decoding, Model, Request
from cotstudy import servers
from cotstudy.draws import Ledger, to_table
from cotstudy.openers import open_model
from cotstudy.prompts import format_named
from cotstudy.servers import Budget, Server, Vllm, named_options
from odd import HOT, Fake, Odd, draw, head, model, raw


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server = Fake()
    yield server
    server.http.shutdown()


def test_each_draw_is_a_request_of_its_own_and_seeds_repeat(fake):
    got = {c.draw_index: c for c in draw(model(fake), 6)}
    assert len(got) == 6 and len({c.text for c in got.values()}) == 6 and fake.most <= 4
    body = fake.asked[-1]
    assert body["n"] == 1 and body["temperature"] == 0.7 and body["max_tokens"] == 20 and body["prompt"] == "Why?" and "stop" not in body
    again = draw(model(fake, concurrency=1), 3)
    assert [c.text for c in again] == [got[i].text for i in range(3)]
    assert all(c.n_tok == 5 and c.token_ids is None and c.logprobs is None and c.finish == "stop" and c.instance == "q" for c in again)


def test_chat_and_log_probabilities(fake):
    plain, chat = model(fake, logprobs=True), model(fake, logprobs=True).as_chat()
    assert draw(plain, 1)[0].logprobs.tolist() == [-0.25] * 3 and draw(chat, 1)[0].logprobs.tolist() == [-0.5] * 4
    assert fake.asked[-1]["messages"] == [dict(role="user", content="Why?")] and plain.id != chat.id and chat.chat
    message = dict(role="assistant", content="5", reasoning_content="2 and 3")
    fake.behave = lambda body, n: (200, fake.good(body, choice=dict(message=message)))
    assert draw(model(fake, chat=True), 1, Decoding())[0].text == "<think>\n2 and 3\n</think>\n\n5"


@pytest.mark.parametrize("failure", [
    lambda: (429, dict(error="slow down"), "application/json", [("retry-after", "0.02")]), lambda: (500, "<html>oops</html>", "text/html"),
    lambda: (503, dict(error="busy")), lambda: (200, dict(id="x", choices=[1] * 50), "application/json", (), True)],
    ids=["429", "500 html", "503", "cut"])
def test_transient_failures_are_tried_again(fake, failure):
    fake.behave = lambda body, n: failure() if n % 2 else None
    assert len(draw(model(fake, concurrency=1), 3)) == 3
    assert len(fake.asked) == 12  # three draws and three of the probe, each after one failure


def test_a_server_that_keeps_failing_ends_in_one_clear_error_and_loses_nothing(fake):
    fake.behave = lambda body, n: (500, "<html>" + "x" * 5000, "text/html") if body["prompt"] == "bad" else None
    got, server = [], model(fake, attempts=3, concurrency=2)
    with pytest.raises(ConnectionError, match="failed after 3 attempts") as error:
        for part in server.complete([Request("good", (0, 1, 2)), Request("bad", (0,)), Request("good2", (0,))], HOT): got += part
    assert len(str(error.value)) < 500 and {c.prompt for c in got} >= {"good"} and len([c for c in got if c.prompt == "good"]) == 3


@pytest.mark.parametrize("behave, message", [
    (lambda f, b: (200, "<html>welcome</html>", "text/html"), "something else than a completion"),
    (lambda f, b: (200, f.good(b) | dict(choices=f.good(b)["choices"] * 3)), "gave 3 completions where 1 was asked"),
    (lambda f, b: (200, f.good(b) | dict(choices=[])), "gave 0 completions"),
    (lambda f, b: (200, f.good(b, choice=dict(text=b["prompt"] + " yes"))), "repeats the prompt"),
    (lambda f, b: (404, dict(error=dict(message="no such model"))), "is this the model's name"),
    (lambda f, b: (400, dict(error=dict(message="max_tokens too large"))), "max_tokens too large"),
    (lambda f, b: (429, dict(error=dict(message="pay", code="insufficient_quota"))), "after 1 attempt: RateLimitError")])
def test_what_another_try_would_not_cure_is_said_at_once(fake, behave, message):
    fake.behave = lambda body, n: behave(fake, body)
    asked = [Request("A prompt that is long enough to see.")]
    with pytest.raises((ValueError, ConnectionError), match=message): list(model(fake, attempts=5).complete(asked, Decoding()))
    assert len(fake.asked) == 1


NO_CHOICES = ([1], [None], ["x"], [[]], [{}], {"text": "x"}, "x", [dict(finish_reason="stop")], [dict(text=5, message=5)],
              [dict(text=["a"], message=dict(content=["a"]))])


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("changes, message", [
    *((dict(choices=c), "something else than a completion") for c in NO_CHOICES),
    (dict(error=dict(message="overloaded"), choices=None), "something else than a completion"),
    (dict(usage=dict(prompt_tokens=1, completion_tokens=21)), "21 tokens where at most 20")])
def test_answers_of_no_known_shape_are_one_clear_error(fake, chat, changes, message):
    fake.behave = lambda body, n: (200, fake.good(body) | changes)
    with pytest.raises(ValueError, match=message): draw(model(fake, chat=chat), 1, Decoding(max_tok=20))
    assert len(fake.asked) == 1


@pytest.mark.parametrize("given", ["x", {}, dict(token_logprobs=[None, -1.0]), dict(token_logprobs=["a"]), dict(token_logprobs=[3.0]),
                                   dict(token_logprobs=[])])
def test_log_probabilities_that_are_none_are_not_kept(fake, given):
    fake.behave = lambda body, n: (200, fake.good(body, choice=dict(logprobs=given)))
    assert draw(model(fake), 1, Decoding(max_tok=20))[0].logprobs is None
    with pytest.raises(ValueError, match="no log-probabilities"): draw(model(fake, logprobs=True), 1, Decoding(max_tok=20))


def test_missing_log_probabilities_are_an_error_only_where_needed(fake):
    fake.behave = lambda body, n: (200, fake.good(body | dict(logprobs=None)))
    assert draw(model(fake), 1)[0].logprobs is None
    with pytest.raises(ValueError, match="no log-probabilities"): draw(model(fake, logprobs=True), 1)


@pytest.mark.parametrize("ignored", ["seed", "temperature"])
def test_draws_that_are_all_the_same_are_refused(fake, ignored):
    fake.behave = lambda body, n: (200, fake.good(body | dict(seed=0)))
    with pytest.raises(ValueError, match="ignores temperature or seed"): draw(model(fake), 4)
    assert len(fake.asked) == 3
    assert len(draw(model(fake), 1, Decoding())) == 1  # greedy needs no such promise


def test_the_probe_is_asked_once_for_plain_and_chat_each(fake):
    server = model(fake)
    for _ in range(3): draw(server, 1), draw(server.as_chat(), 1)
    assert len(fake.asked) == 3 + 3 + 6 and server.as_chat() is server.as_chat()


def test_stop_texts_are_cut_here_too(fake):
    fake.behave = lambda body, n: (200, fake.good(body, choice=dict(text=" a.\nQ: b", finish_reason="length")))
    c, = draw(model(fake), 1, Decoding(stop=("\nQ:", "1", "2", "3", "4")))
    assert c.text == " a." and c.finish == "stop" and len(fake.asked[-1]["stop"]) == 4
    assert draw(model(fake), 1, Decoding())[0].finish == "length"


def test_dialects_say_what_the_protocol_cannot(fake):
    how = Decoding(temperature=0.5, top_k=7, top_p=0.9)
    draw(Server("m", fake.url, dialect="vllm"), 1, how)
    assert fake.asked[-1]["top_k"] == 7 and fake.asked[-1]["min_p"] == 0
    draw(Server("m", fake.url, dialect="transformers", extra=dict(user="me")), 1, how)
    config = json.loads(fake.asked[-1]["generation_config"])
    assert config["do_sample"] and config["top_k"] == 7 and config["temperature"] == 0.5 and fake.asked[-1]["user"] == "me"
    with pytest.raises(ValueError, match="dialect"): Server("m", dialect="french")


def test_the_key_comes_from_the_environment_and_goes_nowhere(fake, monkeypatch):
    server = model(fake)
    assert isinstance(server, Model)
    draw(server, 1)
    assert fake.keys == {"Bearer sk-very-secret"} and "secret" not in repr(vars(server)) + server.id
    fake.behave = lambda body, n: (401, dict(error=dict(message="Incorrect API key provided: sk-very-secret")))
    with pytest.raises(ConnectionError, match="is the key in OPENAI_API_KEY right") as error: draw(server, 1)
    assert "secret" not in str(error.value) and error.value.__cause__ is None
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="set the environment variable OPENAI_API_KEY"): draw(Server("m", "https://example.invalid/v1"), 1)
    for address in ("https://me:pass@example.invalid/v1", "https://sk-very-secret@example.invalid/v1",
                    "https://example.invalid/v1?api-key=sk-very-secret"):
        with pytest.raises(ValueError, match="a password or a key") as error: Server("m", address)
        assert "secret" not in str(error.value)


def test_a_server_that_is_not_there():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"after 2 attempts.*is a server running at http://127.0.0.1:{port}/v1"): draw(Server("m",
            f"http://127.0.0.1:{port}/v1", attempts=2, pause_s=0.01), 1)


def test_greedy_has_one_draw(fake):
    with pytest.raises(ValueError, match="only draw 0"): draw(model(fake), 2, Decoding())
    assert open_model("api:m", base_url=fake.url).id == f"m@{fake.url}"


def fake_vllm(monkeypatch, template="<{q}>"):
    "A stand-in that notes what vLLM would be asked; vLLM itself needs a GPU."
    seen = []

    class Engine:
        def __init__(self, **options): self.options = options
        def get_tokenizer(self):
            class Words:
                chat_template = template
                def __call__(self, text, add_special_tokens=True): return dict(input_ids=[99] * add_special_tokens + [len(w)
                        for w in text.split()])
                def apply_chat_template(self, turns, tokenize, add_generation_prompt):
                    assert [t["role"] for t in turns] == ["user"] and not tokenize and add_generation_prompt
                    return template.replace("{q}", turns[0]["content"]) + " assistant:"
                def decode(self, ids, skip_special_tokens): return " ".join(map(str, ids))
            return Words()
        def generate(self, prompts, params, use_tqdm):
            seen.extend(zip(prompts, params))
            def written(first):
                logprobs = [{first: SimpleNamespace(logprob=-1.0)}, {7: SimpleNamespace(logprob=-2.0)}]
                return SimpleNamespace(token_ids=[first, 7], logprobs=logprobs, finish_reason="length")
            return [SimpleNamespace(outputs=[written(p.seed % 50)]) for p in params]

    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    sys.modules["vllm"].LLM, sys.modules["vllm"].SamplingParams = Engine, SimpleNamespace
    return seen


def test_vllm_is_asked_for_each_draw_by_its_seed(monkeypatch):
    if not find_spec("vllm"):
        with pytest.raises(ImportError, match="not installed"): Vllm("owner/model", "0" * 40)
    seen = fake_vllm(monkeypatch)
    lm = open_model("vllm:owner/model", "0" * 40)
    assert not lm.llm.options["trust_remote_code"] and lm.llm.options["generation_config"] == "vllm"
    got = [c for part in lm.complete([Request("a bc", (0, 3))], HOT) for c in part]
    assert [c.draw_index for c in got] == [0, 3] and got[0].text.endswith("7") and got[0].finish == "length"
    np.testing.assert_array_equal(got[1].logprobs, np.float32([-1, -2]))
    assert len({p.seed for _, p in seen}) == 2 and all(q == dict(prompt_token_ids=[99, 1, 2]) and p.top_k == -1 for q, p in seen)
    with pytest.raises(ValueError, match="revision"): Vllm("owner/model")
    assert isinstance(lm, Model)


def test_vllm_is_asked_through_its_chat_template(monkeypatch, tmp_path):
    seen = fake_vllm(monkeypatch)
    lm = open_model("vllm:owner/model", "0" * 40)
    chat = lm.in_format(format_named("chat"))
    assert lm.in_format(format_named("ho")) is lm and chat.in_format(format_named("chat")) is chat
    assert chat.llm is lm.llm and isinstance(chat, Model)
    views = [Ledger(tmp_path).draw(m, [("q", "a bc")], 2, HOT) for m in (lm, chat)]
    assert [s["prompt_token_ids"] for s, _ in seen] == [[99, 1, 2]] * 2 + [[2, 3, 10]] * 2  # the template brings its own special tokens
    assert chat.id == lm.id + "/chat" and not {*views[0].prompt_id} & {*views[1].prompt_id} and len({p.seed for _, p in seen}) == 4
    fake_vllm(monkeypatch, template=None)
    with pytest.raises(ValueError, match="has no chat template"): open_model("vllm:owner/model", "0" * 40).in_format(format_named("chat"))


@pytest.mark.skipif(not (find_spec("fastapi") and find_spec("uvicorn")),
                    reason="a real server needs fastapi and uvicorn: pip install 'transformers[serving]'")
def test_a_real_server_with_a_model_of_our_own(tmp_path):
    "`transformers serve`: its temperature needs the dialect, and it has no log-probabilities."
    from cotstudy.models import load
    folder = load("pocket/teacher").save(tmp_path / "teacher")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = dict(os.environ, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", HF_HOME=str(tmp_path / "hf"))
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(folder),
                                "--device", "cpu", "--port", str(port)],
                               env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(1200):  # seconds on a calm machine
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0: break
            assert process.poll() is None, "the server ended"
            time.sleep(0.5)
        server = Server(str(folder), f"http://127.0.0.1:{port}/v1", dialect="transformers", concurrency=1, timeout_s=300)
        asked = [Request("Q: Ann has 3 pens. Ann buys 2 more. How many pens does Ann have now?\nA: Let's think step by step.", (0, 1, 2))]
        first = [c.text for part in server.complete(asked, Decoding(temperature=1.0, max_tok=30)) for c in part]
        assert len(set(first)) > 1 and first == [c.text for part in server.complete(asked, Decoding(temperature=1.0, max_tok=30))
                                                 for c in part]
        greedy, = [c for part in server.complete([Request(asked[0].prompt)], Decoding(max_tok=30)) for c in part]
        ours, = [c for part in load(folder).complete([Request(asked[0].prompt)], Decoding(max_tok=30)) for c in part]
        assert greedy.text.strip() == ours.text.strip()
        served = partial(Server, str(folder), f"http://127.0.0.1:{port}/v1", timeout_s=300)
        with pytest.raises(ValueError, match="no log-probabilities"): draw(served(dialect="transformers", logprobs=True), 1)
        with pytest.raises(ValueError, match="ignores temperature"): draw(served(), 2)
    finally:
        process.terminate()
        process.wait(20)


# a server that misbehaves in every way we know

@pytest.mark.parametrize("pieces", [
    [b"H", b"T", b"T", b"P"] * 50, [head(10_000), *[b" "] * 200], [b"HTTP/1.0 200 OK\r\n", *[b"x-%d: 1\r\n" % k for k in range(200)]]],
    ids=["no status", "body", "headers"])
def test_a_server_that_drips_is_given_up_in_time(odd, pieces):
    odd.behave = lambda body, n: (200, raw(*pieces, pause_s=0.05))
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="failed after 2 attempts: no whole answer within 0.4 s"):
        draw(model(odd, timeout_s=0.4, attempts=2), 1, Decoding())
    assert time.monotonic() - began < 4


def test_a_slow_server_is_waited_for(odd):
    odd.behave = lambda body, n: time.sleep(0.3)
    assert len(draw(model(odd, timeout_s=5), 2, HOT)) == 2


def test_the_wait_for_a_retry_is_what_the_server_says(odd):
    soon = lambda: email.utils.formatdate(time.time() + 2, usegmt=True)  # of whole seconds: 1 to 2 s from when it is sent
    odd.free = (429,)
    for said, least, most in (("0.3", 0.3, 5), (soon, 0.9, 9), ("soon", 0, 5), ("-5", 0, 5), ("nan", 0, 5), ("", 0, 5)):
        odd.asked.clear()
        odd.behave = lambda body, n: (429, dict(error=dict(message="slow")), "application/json",
                                      [("retry-after", said() if callable(said) else said)]) if n == 1 else None
        began = time.monotonic()
        assert len(draw(model(odd), 1, Decoding())) == 1 and least <= time.monotonic() - began < most
    for said in ("86400", "1e9", email.utils.formatdate(time.time() + 1e6, usegmt=True)):
        odd.behave = lambda body, n: (429, dict(error=dict(message="slow")), "application/json", [("retry-after", said)])
        if said == "1e9": continue  # no number of HTTP
        with pytest.raises(ConnectionError, match="it asks to wait"): draw(model(odd), 1, Decoding())


@pytest.mark.parametrize("chat, choice, text, finish", [
    (False, dict(finish_reason="eos_token"), " yes", "stop"), (False, dict(finish_reason="stop_sequence"), " yes", "stop"),
    (False, dict(finish_reason="length"), " yes", "length"), (False, dict(finish_reason="max_tokens"), " yes", "length"),
    (False, dict(finish_reason=None), " yes", None), (False, dict(finish_reason="SAFETY"), " yes", "safety"),
    (False, dict(finish_reason="content_filter"), " yes", "content_filter"),
    (False, dict(finish_reason="content_filter", text=None), "", "content_filter"),
    (True, dict(finish_reason="content_filter", message=dict(content=None)), "", "content_filter"),
    (True, dict(finish_reason="stop", message=dict(content=None, refusal="I will not.")), "I will not.", "refusal"),
    (True, dict(finish_reason="stop", message=dict(content=None)), "", "stop"),
    (True, dict(finish_reason="tool_calls", message=dict(content=None, tool_calls=[dict(id="x")])), "", "tool_calls"),
    (True, dict(finish_reason="stop", message=dict(content=None, tool_calls=[dict(id="x")])), "", "tool_calls"),
    (True, dict(finish_reason="stop", message=dict(content="5", reasoning_content="2 and 3")), "<think>\n2 and 3\n</think>\n\n5", "stop"),
    (True, dict(finish_reason="stop", message=dict(content="5", reasoning=dict(effort="low"))), "5", "stop"),
    (True, dict(finish_reason="stop", message=dict(content=[dict(type="text", text="5"), dict(type="text", text="!")])), "5!", "stop"),
    (False, dict(text="half \ud83d"), "half ?", "stop"), (False, dict(text="the key is sk-very-secret"), "the key is ***", "stop")])
def test_every_end_of_a_completion_is_a_draw_with_its_finish(odd, chat, choice, text, finish):
    odd.behave = lambda body, n: (200, odd.good(body, choice=dict(text=" yes") | choice))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        c, = draw(model(odd, chat=chat), 1, Decoding())
    assert (c.text, c.finish) == (text, finish)
    caught = [w for w in caught if w.category is UserWarning]
    assert bool(caught) == (finish not in ("stop", "length", None)) and all(f"{finish} 1" in str(w.message) for w in caught)


LONG = dict(error=dict(message="This model's maximum context length is 100 tokens. However, you requested 220 tokens "
                               "(200 in the messages, 20 in the completion). Please reduce the length.", code="context_length_exceeded"))
FILTER = dict(error=dict(message="The response was filtered", code="content_filter"))


@pytest.mark.parametrize("status, answer, finish", [
    (400, LONG, "too_long"), (200, LONG, "too_long"), (400, FILTER, "content_filter"), (200, FILTER, "content_filter"),
    (422, dict(error="Input validation error: `inputs` must have less than 100 tokens. Given: 200"), "too_long"),
    (400, dict(object="error", message="The input is too long: reduce the length", code=400), "too_long"),
    (403, dict(error=dict(message="Your input was flagged")), "content_filter")])
def test_a_question_that_is_turned_away_is_a_draw_and_the_run_goes_on(odd, tmp_path, status, answer, finish):
    odd.behave = lambda body, n: (status, answer) if body["prompt"] == "bad" else None
    asked = [("a", "good"), ("b", "bad"), ("c", "fine")]
    with pytest.warns(UserWarning, match=f"{finish} 1"): view = Ledger(tmp_path).draw(model(odd), asked, 1, Decoding(max_tok=20))
    assert view.finish.tolist() == ["stop", finish, "stop"] and view.text[1] == "" and not view.truncated.any()
    assert Ledger(tmp_path).stats().n_other.tolist() == [1]
    made = len(odd.asked)
    assert len(Ledger(tmp_path).draw(model(odd), asked, 1, Decoding(max_tok=20))) == 3 and len(odd.asked) == made  # not asked again


def test_a_limit_that_does_not_fit_is_not_the_questions_fault(odd):
    message = ("This model's maximum context length is 100 tokens. However, you requested 1020 tokens "
               "(20 in the messages, 1000 in the completion).")
    odd.behave = lambda body, n: (400, dict(error=dict(message=message)))
    with pytest.raises(ValueError, match="take max_tok=80 or less"): draw(model(odd), 1, Decoding(max_tok=1000))
    odd.behave = lambda body, n: (400, LONG)
    with pytest.raises(ValueError, match="took none of 2. questions .too_long"), pytest.warns(UserWarning):
        list(model(odd).complete([Request(str(k)) for k in range(40)], Decoding()))


@pytest.mark.parametrize("word, message", [
    ("seed", "Unrecognized request argument supplied: seed"), ("stop", "'stop' is not supported with this model"),
    ("n", "Unsupported parameter: 'n'"), ("top_p", "top_p: Extra inputs are not permitted")])
def test_a_harmless_word_that_is_turned_down_is_left_out_and_noted(odd, tmp_path, word, message):
    odd.free = (400,)
    odd.behave = lambda body, n: (400, dict(error=dict(message=message))) if word in body else (200, odd.good(body | dict(seed=n)))
    how = Decoding(temperature=0.7, max_tok=20, stop=("\n\n",))
    view = Ledger(tmp_path).draw(model(odd, concurrency=1), [("a", "Why?")], 3, how)
    assert len(view) == 3 and all(v.endswith(f"not-sent:{word}") for v in view.versions) and len(odd.asked) == 1 + 3 + 3


def test_the_temperature_is_not_harmless_but_for_models_that_have_their_own(odd, tmp_path):
    odd.free = (400,)
    odd.behave = lambda body, n: (400, dict(error=dict(message="temperature is not supported"))) if "temperature" in body else None
    with pytest.raises(ConnectionError, match="temperature is not supported"): draw(model(odd), 2)

    def refused(word, message): return 400, dict(error=dict(param=word, message=message))

    def reasons(body, n):
        if "max_tokens" in body:
            return refused("max_tokens", "Unsupported parameter: 'max_tokens' is not supported with this model. "
                                         "Use 'max_completion_tokens' instead.")
        for word in ("temperature", "top_p"):
            if body.get(word, 1) != 1:
                return refused(word, f"Unsupported value: '{word}' does not support 0.7. Only the default (1) value is supported.")
        usage = dict(prompt_tokens=10, completion_tokens=18, completion_tokens_details=dict(reasoning_tokens=13))
        return 200, odd.good(body, usage=usage)
    odd.behave = reasons
    with pytest.warns(UserWarning, match="a temperature of its own, so that 0.7"):
        view = Ledger(tmp_path).draw(model(odd, concurrency=1), [("a", "Why?")], 3, HOT)
    assert len(view) == 3 and odd.asked[-1]["max_completion_tokens"] == 20 and view.n_tok.tolist() == [18] * 3
    assert all("not-sent:temperature" in v for v in view.versions)
    odd.asked.clear()
    assert len(draw(model(odd, reasoning=True), 2)) == 2 <= len(odd.asked)
    assert all("temperature" not in b and b["max_completion_tokens"] == 20 for b in odd.asked)


def test_what_cannot_be_said_is_refused(odd):
    with pytest.raises(ValueError, match="no word for top_k=7.*dialect"): draw(model(odd), 2, Decoding(temperature=0.7, top_k=7))
    assert not odd.asked
    assert len(draw(model(odd, dialect="vllm"), 1, Decoding(temperature=0.7, top_k=7))) == 1 and odd.asked[-1]["top_k"] == 7


@pytest.mark.parametrize("answer, message", [
    (b"<html>" * 9, "something else"), (b"", "something else"), (b"null", "something else"), (b"[1]", "something else"),
    (b"\xff\xfe\x00", "something else"),
    (b'{"choices": [], "choices": [{"text": "x"}]}', "twice"), (b'{"error": {"message": "no such thing"}}', "no such thing"),
    (b"[" * 100_000, "something else")])
def test_bodies_that_are_no_answer(odd, answer, message):
    odd.behave = lambda body, n: (200, raw(head(len(answer)), answer))
    with pytest.raises(ValueError, match=message): draw(model(odd, attempts=3), 1, Decoding())
    assert len(odd.asked) == 1


@pytest.mark.parametrize("first", [
    (200, dict(error=dict(message="later", code=503))), (200, dict(error=dict(message="busy", type="overloaded_error"))),
    (429, dict(error="busy")),
    (500, "<html>"), (502, ""), (408, ""), (200, raw(head(500), b'{"choices": [')), (200, raw(head(14), b'{"choices": [{')), (200, raw()),
    (200, dict(choices=[dict(text="ha", finish_reason="abort")]))],
    ids=["200 with 503", "200 with overloaded", "429", "500", "502", "408", "closed", "half", "nothing", "abort"])
def test_what_passes_is_tried_again(odd, first):
    odd.behave = lambda body, n: first if n == 1 else None
    assert len(draw(model(odd), 1, Decoding())) == 1 and len(odd.asked) == 2


def test_an_answer_that_is_far_too_long(odd):
    odd.behave = lambda body, n: (200, odd.good(body, choice=dict(text="x" * 10_000_000)))
    with pytest.raises(ValueError, match="ignores max_tokens"): draw(model(odd), 1, Decoding(max_tok=20))
    odd.behave = lambda body, n: (200, raw(head(60_000_000), *[b" " * 1_000_000] * 60))
    with pytest.raises(ValueError, match="more than 32 MB"): draw(model(odd), 1, Decoding(max_tok=20))


def test_text_that_is_no_utf8_is_kept_as_far_as_it_can_be_read(odd):
    data = json.dumps(odd.good(dict(model="m", seed=1), choice=dict(text="QQ"))).encode().replace(b"QQ", b"5 \xff pens")
    odd.behave = lambda body, n: (200, raw(head(len(data)), data))
    assert draw(model(odd), 1, Decoding())[0].text == "5 \ufffd pens"


def test_the_key_and_the_question_do_not_follow_to_another_host(odd):
    other = Fake()
    odd.behave = lambda body, n: (307, "", "text/plain", [("location", other.url + "/completions")])
    with pytest.raises(ConnectionError, match=f"redirects to {other.url}"): draw(model(odd), 1, Decoding())
    assert other.asked == [] and other.keys == set() and len(odd.asked) == 1
    other.http.shutdown()


def test_who_answers_is_recorded_and_a_change_of_it_ends_the_run(odd, tmp_path):
    odd.behave = lambda body, n: (200, odd.good(body | dict(model="m-monday" if n <= 6 else "m-tuesday")))
    with pytest.raises(ValueError, match="answered by 'm-monday' until now, and by 'm-tuesday' now"):
        Ledger(tmp_path).draw(model(odd, concurrency=1), [("a", "Why?")], 10, HOT)
    versions = Ledger(tmp_path).read(["versions"]).versions
    assert [v.split("answered:")[1] for v in versions] == ["m-monday"] * 3  # three of the first six were the probe
    made = len(odd.asked)
    with pytest.raises(ValueError, match="m-monday' until now"): Ledger(tmp_path).draw(model(odd), [("a", "Why?")], 10,
            HOT)  # on another day
    assert len(odd.asked) == made + 1  # the stored draws say who answered then: one request was enough to see it
    odd.behave = lambda body, n: (200, odd.good(body | dict(model="m-monday")))
    back = Ledger(tmp_path).draw(model(odd), [("a", "Why?")], 10, HOT)  # it answers again: nothing of another is among its draws
    assert {v.split("answered:")[1] for v in back.versions} == {"m-monday"} and len(odd.asked) == made + 1 + 7
    odd.behave = lambda body, n: (200, odd.good(body | dict(model="m-monday" if n % 2 else "m-tuesday")))
    assert len(Ledger(tmp_path).draw(model(odd, mixed=True), [("a", "Why?")], 10, HOT)) == 10


def test_two_servers_with_one_model_name_are_two_models(odd, tmp_path):
    other = Odd()
    other.behave = lambda body, n: (200, other.good(body, choice=dict(text=f" other {n}")))
    one, two = (open_model("api:m", "abc", base_url=s.url, pause_s=0.01) for s in (odd, other))
    a, b = (Ledger(tmp_path).draw(m, [("a", "Why?")], 2, HOT) for m in (one, two))
    assert one.id != two.id and not {*a.text} & {*b.text} and len(other.asked) == 5
    assert Server("m", odd.url, dialect="vllm").id != Server("m", odd.url).id == Server("m", odd.url.replace("http", "HTTP") + "/").id
    assert Server("m", odd.url, known_as="here").id == Server("m", other.url, known_as="here").id
    other.http.shutdown()


# killed while paying

def test_kill_9_while_paying_costs_at_most_what_was_in_the_air(odd, tmp_path):
    "Processes are killed at random moments of their work, 24 of them or KILLS; the server's bill says what was paid twice."
    n_kills = int(os.environ.get("KILLS", 24))
    rng, n_workers, asked, kills = random.Random(3), 4, [(f"i{k}", f"Why {k}?") for k in range(2 * n_kills + 12)], 0
    odd.behave = lambda body, n: time.sleep(0.002)
    def pay(): Ledger(tmp_path).draw(model(odd, concurrency=n_workers), asked, 10, HOT, flush_every=40)
    for _ in range(n_kills):
        size, more = len(odd.asked), rng.randrange(40)
        if not (pid := os.fork()):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    pay()
            finally: os._exit(0)
        until = time.monotonic() + 5
        while len(odd.asked) - size < more and time.monotonic() < until: time.sleep(0.001)
        os.kill(pid, signal.SIGKILL)
        kills += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    time.sleep(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torn last lines
        view = Ledger(tmp_path).draw(model(odd, concurrency=n_workers), asked, 10, HOT)
    bill = Counter(b[:2] for b in odd.bill if b[0] != "Ten random digits:")
    assert len(view) == Ledger(tmp_path).count() == len(bill) == 10 * len(asked) and kills >= 0.8 * n_kills
    print(f"{kills} kills: {bill.total() - len(view)} of {len(view):,} draws were paid twice, at most {kills * n_workers} may be")
    assert bill.total() - len(view) <= kills * n_workers
    assert {t for t in view.text} == {f" The answer is {s}." for _, s in bill}
    assert not list(tmp_path.glob("*/.journal*")) and not list(tmp_path.glob("*/.claim*"))


def test_each_paid_draw_is_on_the_disk_before_the_next_is_asked(odd, tmp_path):
    seen = []
    def behave(body, n):
        lines = [len(p.read_bytes().splitlines()) for p in tmp_path.glob("*/.journal-*")]
        seen.append((body["prompt"], sum(lines)))
    odd.behave = behave
    Ledger(tmp_path).draw(model(odd, concurrency=1), [("a", "Why?")], 8, HOT)
    assert [k for p, k in seen if p == "Why?"] == list(range(8)) and not list(tmp_path.glob("*/.journal*"))


def test_two_processes_never_pay_for_the_same_draw(odd, tmp_path):
    odd.behave = lambda body, n: time.sleep(0.005)
    asked = [(f"i{k}", f"Why {k}?") for k in range(30)]
    pids = []
    for part in (asked[:20], asked[10:], asked[::-1]):
        if not (pid := os.fork()):
            try:
                assert len(Ledger(tmp_path).draw(model(odd), part, 4, HOT)) == 4 * len(part)
                os._exit(0)
            finally: os._exit(1)
        pids.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in pids] == [0, 0, 0]
    bill = Counter(b[:2] for b in odd.bill if b[0] != "Ten random digits:")
    assert len(bill) == bill.total() == 120


@pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="it forks, which needs a process of one thread: run pytest without -n")
def test_ctrl_c_keeps_what_was_paid_for(odd, tmp_path):
    odd.behave = lambda body, n: time.sleep(0.2)
    if not (pid := os.fork()):
        try: Ledger(tmp_path).draw(model(odd, concurrency=4), [(f"i{k}", f"Why {k}?") for k in range(30)], 1, Decoding())
        except KeyboardInterrupt: os._exit(7)
        finally: os._exit(1)
    while len(odd.asked) < 7: time.sleep(0.01)
    os.kill(pid, signal.SIGINT)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert Ledger(tmp_path).count() == len(odd.bill)


# the key

def test_no_output_of_a_run_holds_the_key(odd, tmp_path, monkeypatch, caplog, capfd):
    secret = "sk-very-secret"
    odd_answers = [
        lambda b: (200, odd.good(b, choice=dict(text=f" {secret} and Bearer {secret}", finish_reason=secret), model=secret)),
        lambda b: (401, dict(error=dict(message=f"bad key {secret}"))), (lambda b: (500, f"<html>{secret}")),
        lambda b: (200, f"<html>{secret}"),
        lambda b: (307, "", "text/plain", [("location", f"http://x.invalid/{secret}")]), lambda b: (200, dict(error=dict(message=secret))),
        lambda b: (200, json.dumps(odd.good(b, choice=dict(text="QQ"))).replace("QQ", "\\u0073k-very-secret")),
        lambda b: (400, dict(error=dict(message=f"seed {secret} is not supported")))]
    caplog.set_level("INFO")
    told = []
    for k, behave in enumerate(odd_answers):
        odd.behave = lambda body, n: behave(body)
        server = model(odd, attempts=2, budget=Budget(tokens=10**6, file=tmp_path / "book.json"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try: told.append(Ledger(tmp_path / str(k)).draw(server, [("a", "Why?")], 1, Decoding()).to_csv())
            except (ValueError, ConnectionError) as e:
                told += [str(e), repr(e), "".join(traceback.format_exception(e))]
                while e := e.__cause__ or e.__context__: told += [str(e), repr(e), repr(vars(e))]
        told += [str(w.message) for w in caught] + [repr(vars(server))]
    assert len(told) > 15 and odd.keys == {f"Bearer {secret}"}
    assert not [t for t in told if secret in t]
    assert secret not in caplog.text and secret not in "".join(capfd.readouterr())
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) > 3 and not [p for p in files if secret.encode() in p.read_bytes()]
    parts = pd.concat([pd.read_parquet(p) for p in files if p.name.startswith("part")])
    assert secret not in parts.to_csv() and "***" in parts.to_csv()


@pytest.mark.parametrize("echo", [lambda k: k[:9] + "\n" + k[9:], lambda k: k.replace("-", "%2D"), str.lower])
def test_a_key_that_is_echoed_in_pieces_is_not_shown(odd, monkeypatch, echo):
    monkeypatch.setenv("OPENAI_API_KEY", key := "sk-proj-Zq7Wm3Xk9Tt1")
    odd.behave = lambda body, n: (400, f"bad key {echo(key)}")
    with pytest.raises(ConnectionError, match=r"^[^\n]*bad key \*\*\*$"): draw(model(odd))


@pytest.mark.parametrize("where", ["extra", "revision", "known_as", "model"])
def test_a_key_in_an_option_is_refused(odd, monkeypatch, where):
    monkeypatch.setenv("OPENAI_API_KEY", key := "sk-proj-Zq7Wm3Xk9Tt1")
    options = dict(model="m") | {where: dict(api_key=key) if where == "extra" else key}
    with pytest.raises(ValueError, match="holds the key of OPENAI_API_KEY") as e: Server(base_url=odd.url, **options)
    assert key not in str(e.value)


def test_a_key_that_cannot_be_one_is_not_shown(odd, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-caf\u00e9-secret")
    with pytest.raises(ValueError, match="holds characters that no key has") as error: draw(model(odd), 1, Decoding())
    assert "secret" not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", " sk-with-a-line-end\n")
    assert len(draw(model(odd), 1, Decoding())) == 1 and odd.keys == {"Bearer sk-with-a-line-end"}


@pytest.mark.parametrize("name", ["api:m?timeout_s=0", "api:m?concurrency=0", "api:m?attempts=-1", "api:m?mixed=maybe", "api:m?api_key=x",
                                  "api:m?unseen_tok=0", "api:m?tokens=9&unseen_tok=x"])
def test_names_that_cannot_be_read(name):
    with pytest.raises(ValueError, match="the name of 'm' has"): named_options(name)


# answers that nobody has thought of

LEAF = st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats() | st.sampled_from(["", "stop", "length", "x", "\ud800",
        "seed is not supported", "too long", "429"])
NAMES = ["choices", "usage", "error", "model", "message", "content", "text", "finish_reason", "logprobs", "token_logprobs", "prompt_tokens",
         "completion_tokens",
         "total_tokens", "code", "type", "param", "refusal", "tool_calls", "reasoning_content", "detail", "logprob"]
ANY = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
                   max_leaves=12)


@hyp(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(status=st.sampled_from([200, 200, 200, 201, 204, 301, 400, 401, 402, 404, 413, 418, 422, 429, 500, 599]), body=ANY,
       chat=st.booleans(), data=st.data(),
       retry=st.sampled_from(["", "0", "-1", "inf", "1e400", "Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 99 Foo 2026", "9" * 400]))
def test_any_answer_at_all_is_a_draw_or_one_clear_error(status, body, chat, data, retry):
    if data.draw(st.booleans()):  # mostly of the right shape
        choice = {k: data.draw(ANY) for k in data.draw(st.sets(st.sampled_from(["text", "message", "finish_reason", "logprobs", "index"])))}
        body = dict(choices=[choice], usage=data.draw(ANY), model=data.draw(ANY), error=data.draw(st.none() | ANY))
    raw = json.dumps(body).encode()
    server = Server("m", "http://localhost:1/v1", chat=chat, attempts=2, pause_s=0, budget=Budget(tokens=10**12))
    with pytest.MonkeyPatch.context() as mp, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mp.setattr(servers, "send", lambda *a: (status, {"retry-after": retry}, raw))
        try: c, = [c for part in server.complete([Request("Why?", (0,), "q")], Decoding(max_tok=20, stop=("zz",))) for c in part]
        except (ValueError, ConnectionError) as e:
            assert type(e) in (ValueError,
                               ConnectionError) and len(str(e)) < 900 and "'api:m'" in str(e) and e.__cause__ is e.__context__ is None
        else:
            assert isinstance(c.text, str) and c.text.encode() is not None and (c.finish is None or c.finish and len(c.finish) <= 40)
            assert c.n_tok is None or 0 <= c.n_tok <= 20
            assert to_table(server, [c], HOT).num_rows == 1
    assert server.budget.held_in == server.budget.held_out == 0


def test_greedy_draws_do_not_prove_that_a_server_samples(odd, tmp_path):
    odd.behave = lambda body, n: (200, odd.good(body | dict(seed=0)))  # the same whatever the seed
    cold = Decoding(0.0, max_tok=20)
    for _ in range(2):
        assert len(Ledger(tmp_path).draw(model(odd), [("a", "Why?"), ("b", "How?")], 1, cold)) == 2
        with pytest.raises(ValueError, match="ignores temperature or seed"): Ledger(tmp_path).draw(model(odd), [("a", "Why?")], 3, HOT)
        m = model(odd)
        Ledger(tmp_path).draw(m, [("c", f"Why {len(odd.asked)}?")], 1, cold)  # its shelf is recalled
        with pytest.raises(ValueError, match="ignores temperature or seed"): Ledger(tmp_path).draw(m, [("a", "Why?")], 3, HOT)


def test_stored_draws_of_two_models_are_no_corpus(odd, tmp_path):
    from cotstudy.servers import recall
    server = model(odd)
    recall(server, ["x answered:a", "x answered:a"], sampled=True)
    assert server.answered == "a" and server.probed
    with pytest.raises(ValueError, match="were made by a, b; "): recall(model(odd), ["answered:a", "answered:b"], sampled=True)
    recall(model(odd, mixed=True), ["answered:a", "answered:b"], sampled=True)


def test_a_failure_before_the_first_answer_loses_nothing_that_was_paid(odd, tmp_path):
    odd.free = (400,)
    odd.behave = lambda body, n: time.sleep(0.2) or (400, dict(error=dict(message="no"))) if "bad" in body["prompt"] else (
        time.sleep(0.6) or (200, odd.good(body | dict(model="m-monday"))))
    with pytest.raises(ConnectionError):
        Ledger(tmp_path).draw(model(odd, concurrency=4), [("z", "bad"), *((k, f"Why {k}?") for k in "abc")], 1, Decoding(0.0, max_tok=20))
    assert Ledger(tmp_path).count() == sum("bad" not in b["prompt"] for b in odd.asked) > 0


def test_who_answered_elsewhere_is_nobody_new_here(odd, tmp_path):
    from cotstudy.servers import recall
    m = model(odd)
    recall(m, ["answered:m-mon"], sampled=False)
    with pytest.raises(ValueError, match="were made by m-mon, m-tue"): recall(m, ["answered:m-tue"], sampled=True)
    assert Server("m", odd.url, mixed=True).id == Server("m", odd.url).id  # what was paid for is there for both
