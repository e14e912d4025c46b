"""Servers that fail, lie, cost money or tell too much; and one that is real."""
import json
import os
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from threading import Lock, Thread
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from cotstudy.decoding import Decoding, Request
from cotstudy.openers import open_model
from cotstudy.servers import PRICES, Budget, OverBudget, Price, Server, Vllm, budget, named_options


HOT = Decoding(temperature=0.7, max_tok=20)


class Fake:
    "An OpenAI-compatible server whose every answer is decided by `behave(body, n)`."

    def __init__(self):
        self.asked, self.keys, self.at_once, self.most, self.behave, lock = [], set(), 0, 0, lambda body, n: None, Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *a): pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    fake.asked.append(body)
                    fake.keys.add(self.headers.get("authorization"))
                    n, fake.at_once = len(fake.asked), fake.at_once + 1
                    fake.most = max(fake.most, fake.at_once)
                try: self.reply(*(fake.behave(body, n) or (200, fake.good(body))))
                finally: fake.at_once -= 1

            def reply(self, status, answer, kind="application/json", headers=(), cut=False):
                data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
                self.send_response(status)
                for k, v in (("content-type", kind), ("content-length", str(len(data))), *headers): self.send_header(k, v)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if cut else data)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    @staticmethod
    def good(body, **changes):
        text = f" The answer is {body['seed']}."
        choice = dict(index=0, finish_reason="stop", logprobs=None)
        if "messages" in body:
            choice["message"] = dict(role="assistant", content=text)
            if body.get("logprobs"): choice["logprobs"] = dict(content=[dict(token="a", logprob=-0.5, bytes=None, top_logprobs=[])] * 4)
        else:
            choice["text"] = text
            if body.get("logprobs"): choice["logprobs"] = dict(token_logprobs=[-0.25] * 3, tokens=["a"] * 3, text_offset=[0] * 3, top_logprobs=None)
        return dict(id="x", object="o", created=0, model=body["model"], choices=[choice | changes.pop("choice", {})],
                    usage=dict(prompt_tokens=10, completion_tokens=5, total_tokens=15)) | changes


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server = Fake()
    yield server
    server.http.shutdown()


def model(fake, **changes): return Server("m", fake.url, pause_s=0.01, **changes)
def draw(server, n=3, how=HOT): return [c for part in server.complete([Request("Why?", tuple(range(n)), "q")], how) for c in part]


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
    fake.behave = lambda body, n: (200, fake.good(body, choice=dict(message=dict(role="assistant", content="5", reasoning_content="2 and 3"))))
    assert draw(model(fake, chat=True), 1, Decoding())[0].text == "<think>\n2 and 3\n</think>\n\n5"


@pytest.mark.parametrize("failure", [
    lambda: (429, dict(error="slow down"), "application/json", [("retry-after", "0.02")]), lambda: (500, "<html>oops</html>", "text/html"),
    lambda: (503, dict(error="busy")), lambda: (200, dict(id="x", choices=[1] * 50), "application/json", (), True)], ids=["429", "500 html", "503", "cut"])
def test_transient_failures_are_tried_again(fake, failure):
    fake.behave = lambda body, n: failure() if n % 2 else None
    assert len(draw(model(fake, concurrency=1), 3)) == 3 and len(fake.asked) == 12  # three draws and three of the probe, each after one failure


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


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("changes, message", [
    *((dict(choices=c), "something else than a completion") for c in ([1], [None], ["x"], [[]], [{}], {"text": "x"}, "x", [dict(finish_reason="stop")], [dict(text=5, message=5)], [dict(text=["a"], message=dict(content=["a"]))])),
    (dict(error=dict(message="overloaded"), choices=None), "something else than a completion"), (dict(usage=dict(prompt_tokens=1, completion_tokens=21)), "21 tokens where at most 20")])
def test_answers_of_no_known_shape_are_one_clear_error(fake, chat, changes, message):
    fake.behave = lambda body, n: (200, fake.good(body) | changes)
    with pytest.raises(ValueError, match=message): draw(model(fake, chat=chat), 1, Decoding(max_tok=20))
    assert len(fake.asked) == 1


@pytest.mark.parametrize("given", ["x", {}, dict(token_logprobs=[None, -1.0]), dict(token_logprobs=["a"]), dict(token_logprobs=[3.0]), dict(token_logprobs=[])])
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


def test_the_budget_is_never_passed_and_nothing_is_lost(fake):
    server, got = model(fake, budget=Budget(tokens=200), concurrency=3), []
    with pytest.raises(OverBudget, match="the budget is 200"):
        for part in server.complete([Request("Why?", tuple(range(100)))], HOT): got += part
    b = server.budget
    assert b.n_in + b.n_out == 15 * len(fake.asked) <= 200 and len(got) == len(fake.asked) - 3 and (b.held_in, b.held_out) == (0, 0)
    with pytest.raises(ValueError, match="needs a price"): Budget(money=1)
    purse = Budget(money=1e-4, price=Price(1.0, 2.0, "2026-11-23"))
    with pytest.raises(OverBudget, match="prices of 2026-11-23"): draw(model(fake, budget=purse), 50)
    assert 0 < purse.cost(purse.n_in, purse.n_out) <= 1e-4


@pytest.mark.parametrize("usage", [None, {}, dict(prompt_tokens=None, completion_tokens=None), dict(prompt_tokens=0, completion_tokens=0), dict(prompt_tokens="3", completion_tokens=-5)])
def test_a_server_that_does_not_count_cannot_break_the_budget(fake, usage):
    "Where it does not say what was used, all that was set aside counts."
    fake.behave = lambda body, n: (200, fake.good(body) | dict(usage=usage))
    server, got = model(fake, budget=Budget(tokens=400), concurrency=2), []
    with pytest.raises(OverBudget):
        for part in server.complete([Request("Why?", tuple(range(100)))], HOT): got += part
    assert len(fake.asked) == 3 + len(got) < 12 and {c.n_tok for c in got} == {None}
    assert server.budget.n_out >= 20 * len(got) and (server.budget.held_in, server.budget.held_out) == (0, 0)


def test_prices_are_dated_and_overridden(tmp_path, monkeypatch):
    monkeypatch.delenv("COTSTUDY_PRICES", raising=False)
    assert all(len(p.as_of) == 10 for p in PRICES.values())
    known = budget(money=1, model="gpt-4o-mini").price
    assert known == PRICES["gpt-4o-mini"] == named_options("api:gpt-4o-mini?money=1")[1]["budget"].price
    assert budget(money=1, price="7,8,2026-11-24", model="gpt-4o-mini").price == Price(7.0, 8.0, "2026-11-24")
    with pytest.raises(ValueError, match="none is known of 'desk'.*COTSTUDY_PRICES"): budget(money=1, model="desk")
    (table := tmp_path / "prices.json").write_text('{"desk": [1, 2, "2026-11-24"]}')
    monkeypatch.setenv("COTSTUDY_PRICES", str(table))
    assert budget(money=1, model="desk").price == Price(1.0, 2.0, "2026-11-24")
    with pytest.raises(ValueError, match="none is known of 'gpt-4o-mini'"): budget(money=1, model="gpt-4o-mini")
    for bad in ("{", "[]", '{"desk": [1]}', '{"desk": "cheap"}', '{"desk": [1, -2, "today"]}'):
        table.write_text(bad)
        with pytest.raises(ValueError, match="COTSTUDY_PRICES is|none is known"): budget(money=1, model="desk")


def test_processes_share_one_book(tmp_path, fake):
    first, second = (Budget(tokens=300, file=tmp_path / "book.json") for _ in range(2))
    first.reserve(100, 50)
    with pytest.raises(OverBudget, match="301 tokens"): second.reserve(100, 51)
    first.settle((100, 50), 10, 5)
    assert second.reserve(100, 185) == (100, 185)
    with pytest.raises(ValueError, match="0 or more"): Budget(tokens=-1)


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
    draw(server, 1)
    assert fake.keys == {"Bearer sk-very-secret"} and "secret" not in repr(vars(server)) + server.id
    fake.behave = lambda body, n: (401, dict(error=dict(message="Incorrect API key provided: sk-very-secret")))
    with pytest.raises(ConnectionError, match="is the key in OPENAI_API_KEY right") as error: draw(server, 1)
    assert "secret" not in str(error.value) and error.value.__cause__ is None
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ValueError, match="set the environment variable OPENAI_API_KEY"): draw(Server("m", "https://example.invalid/v1"), 1)
    for address in ("https://me:pass@example.invalid/v1", "https://sk-very-secret@example.invalid/v1", "https://example.invalid/v1?api-key=sk-very-secret"):
        with pytest.raises(ValueError, match="a password or a key") as error: Server("m", address)
        assert "secret" not in str(error.value)


def test_a_server_that_is_not_there():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"after 2 attempts.*is a server running at http://127.0.0.1:{port}/v1"): draw(Server("m", f"http://127.0.0.1:{port}/v1", attempts=2, pause_s=0.01), 1)


def test_greedy_has_one_draw(fake):
    with pytest.raises(ValueError, match="only draw 0"): draw(model(fake), 2, Decoding())
    assert open_model("api:m", base_url=fake.url).id == f"m@{fake.url}"


def test_vllm_is_asked_for_each_draw_by_its_seed(monkeypatch):
    "A stand-in that notes what vLLM would be asked; vLLM itself needs a GPU."
    if not find_spec("vllm"):
        with pytest.raises(ImportError, match="not installed"): Vllm("owner/model", "0" * 40)
    seen = []

    class Engine:
        def __init__(self, **options): self.options = options
        def get_tokenizer(self):
            class Words:
                def __call__(self, text): return dict(input_ids=[len(w) for w in text.split()])
                def decode(self, ids, skip_special_tokens): return " ".join(map(str, ids))
            return Words()
        def generate(self, prompts, params, use_tqdm):
            seen.extend(zip(prompts, params))
            return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=[p.seed % 50, 7], logprobs=[{p.seed % 50: SimpleNamespace(logprob=-1.0)}, {7: SimpleNamespace(logprob=-2.0)}],
                                                             finish_reason="length")]) for p in params]

    monkeypatch.setitem(sys.modules, "vllm", ModuleType("vllm"))
    sys.modules["vllm"].LLM, sys.modules["vllm"].SamplingParams = Engine, SimpleNamespace
    lm = open_model("vllm:owner/model", "0" * 40)
    assert not lm.llm.options["trust_remote_code"] and lm.llm.options["generation_config"] == "vllm"
    got = [c for part in lm.complete([Request("a bc", (0, 3))], HOT) for c in part]
    assert [c.draw_index for c in got] == [0, 3] and got[0].text.endswith("7") and got[0].finish == "length"
    np.testing.assert_array_equal(got[1].logprobs, np.float32([-1, -2]))
    assert len({p.seed for _, p in seen}) == 2 and all(q == dict(prompt_token_ids=[1, 2]) and p.top_k == -1 for q, p in seen)
    with pytest.raises(ValueError, match="revision"): Vllm("owner/model")


@pytest.mark.skipif(not (find_spec("fastapi") and find_spec("uvicorn")), reason="a real server needs fastapi and uvicorn: pip install 'transformers[serving]'")
def test_a_real_server_with_a_model_of_our_own(tmp_path):
    "`transformers serve`: its temperature needs the dialect, and it has no log-probabilities."
    from cotstudy.models import load
    folder = load("pocket/teacher").save(tmp_path / "teacher")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    env = dict(os.environ, HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", HF_HOME=str(tmp_path / "hf"))
    (tmp_path / "hf" / "hub").mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(folder), "--device", "cpu", "--port", str(port)],
                               env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", port)) == 0: break
            assert process.poll() is None, "the server ended"
            time.sleep(0.5)
        server = Server(str(folder), f"http://127.0.0.1:{port}/v1", dialect="transformers", concurrency=1, timeout_s=300)
        asked = [Request("Q: Ann has 3 pens. Ann buys 2 more. How many pens does Ann have now?\nA: Let's think step by step.", (0, 1, 2))]
        first = [c.text for part in server.complete(asked, Decoding(temperature=1.0, max_tok=30)) for c in part]
        assert len(set(first)) > 1 and first == [c.text for part in server.complete(asked, Decoding(temperature=1.0, max_tok=30)) for c in part]
        greedy, = [c for part in server.complete([Request(asked[0].prompt)], Decoding(max_tok=30)) for c in part]
        ours, = [c for part in load(folder).complete([Request(asked[0].prompt)], Decoding(max_tok=30)) for c in part]
        assert greedy.text.strip() == ours.text.strip()
        with pytest.raises(ValueError, match="no log-probabilities"): draw(Server(str(folder), f"http://127.0.0.1:{port}/v1", dialect="transformers", logprobs=True, timeout_s=300), 1)
        with pytest.raises(ValueError, match="ignores temperature"): draw(Server(str(folder), f"http://127.0.0.1:{port}/v1", timeout_s=300), 2)
    finally:
        process.terminate()
        process.wait(20)
