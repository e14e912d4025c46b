"""Servers to try ours against: one that answers as it is told to, and one that also keeps its own bill."""
import json
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread

from cotstudy.decoding import Decoding, Request
from cotstudy.servers import Server

HOT = Decoding(temperature=0.7, max_tok=20)


class Fake:
    "An OpenAI-compatible server whose every answer is decided by `behave(body, n)`."

    def __init__(self):
        self.asked, self.keys, self.at_once, self.most, self.behave, lock = [], set(), 0, 0, lambda body, n: None, Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *a): pass

            def do_POST(self):
                self.body = body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    fake.asked.append(body)
                    fake.keys.add(self.headers.get("authorization"))
                    self.n, fake.at_once = len(fake.asked), fake.at_once + 1
                    fake.most = max(fake.most, fake.at_once)
                try: self.reply(*(fake.behave(body, self.n) or (200, fake.good(body))))
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
            logprobs = dict(token_logprobs=[-0.25] * 3, tokens=["a"] * 3, text_offset=[0] * 3, top_logprobs=None)
            if body.get("logprobs"): choice["logprobs"] = logprobs
        return dict(id="x", object="o", created=0, model=body["model"], choices=[choice | changes.pop("choice", {})],
                    usage=dict(prompt_tokens=10, completion_tokens=5, total_tokens=15)) | changes


def model(fake, **changes): return Server("m", fake.url, pause_s=0.01, **changes)
def draw(server, n=3, how=HOT): return [c for part in server.complete([Request("Why?", tuple(range(n)), "q")], how) for c in part]


# a server that misbehaves in every way we know, and keeps its own bill

class Odd(Fake):
    "A server whose bill says what it would charge, whatever it answers: `charge(body, n)` tokens in and out for its n-th request."

    def __init__(self, charge=lambda body, n: (10, 5)):
        super().__init__()
        self.bill, self.charge, self.free, self.raw = [], charge, (), None  # free: statuses of which nothing is charged
        odd, serve = self, self.http.RequestHandlerClass

        class Handler(serve):
            def reply(self, status, answer, *rest, **kw):
                if status not in odd.free: odd.bill.append((self.body.get("prompt"), self.body.get("seed"), *odd.charge(self.body, self.n)))
                if callable(answer): return answer(self)
                super().reply(status, answer, *rest, **kw)
        self.http.RequestHandlerClass = Handler

    total = property(lambda self: sum(a + b for *_, a, b in self.bill))


def raw(*pieces, pause_s=0.0):
    "An answer that is written piece by piece."
    def write(handler):
        with suppress(OSError):
            for piece in pieces:
                handler.wfile.write(piece)
                handler.wfile.flush()
                time.sleep(pause_s)
    return write


def head(n): return b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % n


