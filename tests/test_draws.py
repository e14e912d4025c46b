"""The ledger's promises: every draw once, none wrong, whatever is killed, torn, full or read-only."""
import errno
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings as hyp, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cotstudy import draws
from cotstudy.draws import Ledger, winners
from cotstudy.files import lease
from cotstudy import decoding
from cotstudy.decoding import Completion, Decoding, Request, prompt_id

EOS = 0


class Model(decoding.Model):
    "Says 1 to 12 letters that only (id, prompt, draw index) decide; keeps a log of what it was asked."
    name, engine, device, dtype = "toy/model", "toy", "cpu", "float32"

    def __init__(self, id="toy-1", pause=0.0, per_list=5, log=None):
        self.id, self.pause, self.per_list, self.asked, self.log = id, pause, per_list, [], log

    def decode(self, ids): return "".join(chr(i) for i in ids if i != EOS)

    def whole(self, prompt, i):
        h = hashlib.sha256(json.dumps([self.id, prompt, i]).encode()).digest()
        return [97 + b % 26 for b in h[1: 2 + h[0] % 12]] + [EOS]

    def say(self, r, i, decoding):
        ids = self.whole(r.prompt, i)[:decoding.max_tok]
        return Completion(r.instance, r.prompt, prompt_id(self, r.prompt, decoding), i, self.decode(ids), np.array(ids, np.int32),
                          -np.array(ids, np.float32) / 100, len(ids), "stop" if ids[-1] == EOS else "length")

    def complete(self, requests, decoding):
        todo = [(r, i) for r in requests for i in r.draw_indices]
        random.Random(1).shuffle(todo)
        for k in range(0, len(todo), self.per_list):
            some = todo[k: k + self.per_list]
            self.asked += [(r.prompt, i) for r, i in some]
            if self.log:
                with open(self.log, "a") as f: f.write("".join(f"{r.prompt} {i}\n" for r, i in some))
            time.sleep(self.pause)
            yield [self.say(r, i, decoding) for r, i in some]


def at(max_tok=64, **kw): return Decoding(**{"temperature": 0.7, "max_tok": max_tok, **kw})
def ask(n): return [(f"i{k}", f"prompt {k}") for k in range(n)]

def expected(model, requests, n, decoding, first=0):
    "The view as it must be, straight from the model's definition."
    for instance, prompt in requests:
        for i in range(first, first + n):
            c = model.say(Request(prompt, (i,), instance), i, decoding)
            yield instance, prompt, i, c.text, c.token_ids.tolist(), c.logprobs.tolist(), c.n_tok, c.finish, c.finish == "length"

def as_tuples(view):
    return [(r.instance, r.prompt, r.draw_index, r.text, r.token_ids.tolist(), r.logprobs.tolist(), r.n_tok, r.finish, r.truncated)
            for r in view.itertuples()]

def check(view, model, requests, n, decoding, first=0):
    assert as_tuples(view) == list(expected(model, requests, n, decoding, first))

def parts(folder): return sorted(Path(folder).glob("*/part-*.parquet"))

def child(fn):
    "Run fn in a forked process; exit status 0, or 1 with the traceback on stderr."
    pid = os.fork()
    if pid: return pid
    try:
        warnings.simplefilter("ignore")
        fn()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally: os._exit(1)

def wait(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# what is asked is what comes, and it is made once

def test_view_and_nesting(tmp_path):
    m, requests = Model(), ask(3)
    for n, made in ((1, 3), (4, 9), (30, 78), (4, 0), (1, 0)):
        m.asked = []
        check(Ledger(tmp_path).draw(m, requests, n, at()), m, requests, n, at())
        assert len(m.asked) == len(set(m.asked)) == made
    m.asked = []
    check(Ledger(tmp_path).draw(m, requests[::-1] + ask(4)[3:], 3, at(), first=28), m, requests[::-1] + ask(4)[3:], 3, at(), first=28)
    assert sorted(m.asked) == sorted([(p, 30) for _, p in requests] + [("prompt 3", i) for i in (28, 29, 30)])


def test_same_prompt_is_made_once_and_given_to_each(tmp_path):
    m, requests = Model(), [("a", "x"), ("b", "y"), ("c", "x"), ("a", "x")]
    view = Ledger(tmp_path).draw(m, requests, 2, at())
    check(view, m, requests, 2, at())
    assert len(m.asked) == 4 and Ledger(tmp_path).count() == 4


def test_empty_requests(tmp_path):
    full, none = Ledger(tmp_path).draw(Model(), ask(1), 2, at()), Ledger(tmp_path / "other").draw(Model(), [], 2, at())
    assert len(none) == 0 and list(none.columns) == list(full.columns)


def test_another_decoding_or_model_is_another_draw(tmp_path):
    m, L = Model(), Ledger(tmp_path)
    for d in (at(), at(temperature=1.0), at(top_k=5), at(top_p=0.9), at(stop=("\n",)), at(temperature=0.0)):
        m.asked = []
        L.draw(m, ask(1), 1, d)
        assert len(m.asked) == 1
    L.draw(Model("toy-2"), ask(1), 1, at())
    m.asked = []
    L.draw(m, ask(1), 1, at(temperature=0.0, top_k=7))  # greedy decoding ignores it
    assert m.asked == [] and L.count() == len(L.stats()) == 7 and L.models() == {"toy-1": "toy/model", "toy-2": "toy/model"}


@pytest.mark.parametrize("n, first, temperature", [(2, 0, 0.0), (1, 1, 0.0), (0, 0, 0.7), (1, -1, 0.7)])
def test_impossible_requests(tmp_path, n, first, temperature):
    with pytest.raises(ValueError, match=f"n={n}"): Ledger(tmp_path).draw(Model(), ask(1), n, at(temperature=temperature), first=first)
    assert not list(tmp_path.iterdir())


def test_provenance_and_columns(tmp_path):
    view = Ledger(tmp_path).draw(Model(), ask(1), 2, at(stop=("\n\n",), top_k=3))
    r = view.iloc[1]
    assert (r.model, r.model_id, r.engine, r["dtype"], r.device, r.temperature, r.top_p, r.top_k, json.loads(r.stop), r.limit_tok) == (
        "toy/model", "toy-1", "toy", "float32", "cpu", 0.7, 1.0, 3, ["\n\n"], 64)
    assert abs(r.written_ns / 1e9 - time.time()) < 60 and "torch-" in r.versions
    assert not [c for c in [*view.columns, *draws.SCHEMA.names] if "score" in c or "correct" in c]
    assert view.draw_index.dtype.kind == view.n_tok.dtype.kind == "i" and view.truncated.dtype == bool


# a length limit is a view

@hyp(max_examples=15, deadline=None)
@given(limits=st.lists(st.integers(1, 14), min_size=1, max_size=5))
def test_length_limits(limits):
    with tempfile.TemporaryDirectory() as folder:
        m, known = Model(), {}
        for limit in limits:
            m.asked = []
            check(Ledger(folder).draw(m, ask(2), 4, at(limit)), m, ask(2), 4, at(limit))
            keys = [(p, i) for _, p in ask(2) for i in range(4)]
            assert sorted(m.asked) == [k for k in keys if not (known.get(k, 0) >= min(limit, len(m.whole(*k))))]
            known |= {k: max(limit, known.get(k, 0)) for k in m.asked}


def test_without_tokens(tmp_path):
    m, L = Model(), Ledger(tmp_path)
    L.draw(m, ask(5), 6, at())
    full, slim = (L.draw(m, ask(5), 6, at(4), tokens=t) for t in (True, False))
    assert slim.drop(columns=["token_ids", "logprobs"]).equals(full.drop(columns=["token_ids", "logprobs"]))
    assert slim.token_ids.isna().all() and slim.logprobs.isna().all() and full.truncated.any()


class Server(Model):
    "Gives texts, and perhaps a count of tokens, as some servers do."
    def __init__(self, n_tok):
        super().__init__()
        self.n_tok = n_tok

    def say(self, r, i, decoding):
        name = prompt_id(self, r.prompt, decoding)
        return Completion(r.instance, r.prompt, name, i, f"text {i}", None, None, self.n_tok, "stop")


def test_draws_without_tokens(tmp_path):
    view = Ledger(tmp_path).draw(Server(9), ask(2), 2, at(12))
    assert view.text.tolist() == ["text 0", "text 1"] * 2 and view.token_ids.isna().all() and view.n_tok.tolist() == [9] * 4
    with pytest.raises(ValueError, match="cannot be cut; ask for max_tok >= 9"): Ledger(tmp_path).draw(Server(9), ask(2), 2, at(8))
    unknown = Ledger(tmp_path / "b").draw(Server(None), ask(1), 2, at(8))
    assert unknown.n_tok.isna().all() and unknown.truncated.tolist() == [False, False]


@hyp(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.integers(1, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_winners(rows):
    key, ended, limit, when = (np.array(c) for c in zip(*rows))
    best = {}
    for k, row in enumerate(rows):
        rank = (0, 0, row[3], k) if row[1] else (1, -row[2], row[3], k)
        best[row[0]] = min(best.get(row[0], rank), rank)
    assert winners(key, ended.astype(bool), limit, when).tolist() == [rank[-1] for _, rank in sorted(best.items())]


def test_text_that_is_no_unicode_costs_nothing(tmp_path):
    class Emoji(Model):
        def decode(self, ids): return "half \ud83d"
    assert Ledger(tmp_path).draw(Emoji(), ask(1), 1, at()).text[0] == "half ?"


# models that do not do as they are told

class Odd(Model):
    def __init__(self, change):
        super().__init__()
        self.change = change

    def complete(self, requests, decoding): yield from self.change(super().complete(requests, decoding))

def twice(lists):
    for some in lists: yield from (some, some)

def unasked(lists):
    for some in lists: yield [Completion(**{**vars(c), "draw_index": c.draw_index + 100}) for c in some]

def stranger(lists):
    for some in lists: yield [Completion(**{**vars(c), "prompt_id": "0" * 32}) for c in some]

def breaks(lists):
    yield next(lists)
    raise KeyboardInterrupt

def lazy(lists): yield next(lists)

@pytest.mark.parametrize("change, error, kept", [(twice, ValueError, 5), (unasked, ValueError, 0), (stranger, ValueError, 0),
                                                 (breaks, KeyboardInterrupt, 5), (lazy, ValueError, 5)])
def test_odd_models(tmp_path, change, error, kept):
    with pytest.raises(error): Ledger(tmp_path).draw(Odd(change), ask(2), 4, at())
    assert Ledger(tmp_path).count() == kept  # what had arrived is stored
    m = Model()
    check(Ledger(tmp_path).draw(m, ask(2), 4, at()), m, ask(2), 4, at())
    assert len(m.asked) == 8 - kept


def test_flush_by_rows_and_by_seconds(tmp_path):
    seen = []
    Ledger(tmp_path / "a").draw(Model(), ask(4), 10, at(), flush_every=10, progress=lambda *a: seen.append((a, len(parts(tmp_path / "a")))))
    assert seen == [((5 * k, 40), k // 2) for k in range(1, 9)]
    Ledger(tmp_path / "b").draw(Model(), ask(4), 10, at(), flush_s=0)
    assert len(parts(tmp_path / "b")) == 8


# other eyes

def test_read_by_pandas_duckdb_and_datasets(tmp_path):
    import datasets
    import duckdb
    m, L = Model(), Ledger(tmp_path / "L")
    view = L.draw(m, ask(4), 6, at(), flush_every=7)
    shelf = L.shelf(m, at()).folder
    (shelf / "_damaged").mkdir()
    (shelf / "_damaged" / "part-1.parquet.damaged").write_bytes(b"junk")  # what is set aside, and what a killed process
    (shelf / ".part-1.parquet").write_bytes(b"junk")  # leaves behind, disturbs nobody
    want = sorted(zip(view.prompt_id, view.draw_index, view.text, map(list, view.token_ids)))
    p = pd.read_parquet(shelf)
    assert sorted(zip(p.prompt_id, p.draw_index, p.text, map(list, p.token_ids))) == want
    glob = f"{tmp_path}/L/*/part-*.parquet"
    d = duckdb.sql(f"select prompt_id, draw_index, text, token_ids from '{glob}'").fetchall()
    assert sorted((a, b, c, list(e)) for a, b, c, e in d) == want
    datasets.disable_progress_bars()
    h = datasets.load_dataset("parquet", data_files=glob, split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(zip(h["prompt_id"], h["draw_index"], h["text"], h["token_ids"])) == want
    got = L.read(["prompt_id", "text"], filters=pc.field("draw_index") == 3)
    assert sorted(zip(got.prompt_id, got.text)) == sorted((a, c) for a, b, c, _ in want if b == 3)
    assert len(L.read()) == L.count() == 24 and list(L.read().columns) == draws.SCHEMA.names and L.read(["text"]).shape == (24, 1)
    whole = L.read(["model_id", "text"])
    for name, mine in whole.groupby(whole.model_id.astype(str)): assert list(L.read(["text"], model_id=name).text) == list(mine.text)
    assert L.read(["text"], model_id="of nobody").empty
    assert len(Ledger(tmp_path / "nothing").read()) == Ledger(tmp_path / "nothing").count() == 0


def test_a_few_prompts_are_read_from_a_few_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(draws, "ROWS_PER_GROUP", 50)
    m = Model()
    Ledger(tmp_path).draw(m, ask(100), 10, at())
    read, real = [], pq.ParquetFile.read_row_group
    def watched(self, g, **kw):
        read.append((g, tuple(kw["columns"])))
        return real(self, g, **kw)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", watched)
    check(Ledger(tmp_path).draw(m, ask(2), 10, at()), m, ask(2), 10, at())
    assert len(m.asked) == 1000 and 1 <= len({g for g, c in read if "text" in c}) <= 2


# damage

@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("opened_before", [False, True])
def test_damage_is_never_read(tmp_path, seed, opened_before):
    "A byte flipped anywhere, or the end cut off anywhere, found by a new ledger or by one that had checked the part before."
    rng, m = random.Random(seed), Model()
    L = Ledger(tmp_path)
    L.draw(m, ask(6), 10, at(), flush_every=30)
    victim = rng.choice(parts(tmp_path))
    data = bytearray(victim.read_bytes())
    if seed % 3 == 0: data = data[: rng.randrange(len(data))]
    else: data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    victim.write_bytes(data)
    m.asked = []
    if not opened_before: L = Ledger(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check(L.draw(m, ask(6), 10, at()), m, ask(6), 10, at())
    if seed % 3 == 0 or not opened_before: assert L.damaged == [victim]
    if not L.damaged: assert m.asked == [] and not caught  # the byte was in nothing that was read
    else:
        assert len(m.asked) == 30 and not victim.exists() and (victim.parent / "_damaged" / f"{victim.name}.damaged").exists()
        assert len(caught) == 1 and victim.name in str(caught[0].message)
        m.asked = []
        check(Ledger(tmp_path).draw(m, ask(6), 10, at()), m, ask(6), 10, at())
        assert m.asked == []


def test_a_disk_that_forgets_is_not_paid_for_on_and_on(tmp_path, monkeypatch):
    def rots(part): raise draws.Damaged(part, "gone")
    monkeypatch.setattr(draws, "check", rots)
    m = Model()
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(OSError, match="could not be read back"):
        Ledger(tmp_path).draw(m, ask(1), 1, at())
    assert len(m.asked) == 4


def test_an_error_that_is_no_damage_leaves_the_part_alone(tmp_path, monkeypatch):
    L = Ledger(tmp_path)
    L.draw(Model(), ask(1), 1, at())
    def fails(*a, **kw): raise OSError(errno.EIO, "cable pulled")
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", fails)
    with pytest.raises(OSError, match="cable"): L.draw(Model(), ask(1), 1, at())
    assert L.damaged == [] and len(parts(tmp_path)) == 1


# tidying up

def test_compaction_changes_no_view(tmp_path, monkeypatch):
    monkeypatch.setattr(draws, "COMPACT_OVER", 6)
    m, L = Model(), Ledger(tmp_path)
    L.draw(m, ask(20), 2, at(3), flush_every=1)
    L.draw(m, ask(20), 5, at(), flush_every=1)
    assert len(parts(tmp_path)) <= 7
    m.asked = []
    for ledger in (L, Ledger(tmp_path)): check(ledger.draw(m, ask(20), 5, at()), m, ask(20), 5, at())
    L.compact()
    assert len(parts(tmp_path)) == 1 and pq.read_table(parts(tmp_path)[0]).num_rows == L.count() == 100
    for ledger in (L, Ledger(tmp_path)): check(ledger.draw(m, ask(20), 5, at()), m, ask(20), 5, at())
    assert m.asked == []


def test_compaction_rewrites_a_draw_only_a_few_times(tmp_path, monkeypatch):
    monkeypatch.setattr(draws, "COMPACT_OVER", 8)
    written, real = [], draws.write_part
    monkeypatch.setattr(draws, "write_part", lambda shelf, table: written.append(len(table)) or real(shelf, table))
    Ledger(tmp_path).draw(Model(), ask(50), 10, at(), flush_every=5)
    assert len(parts(tmp_path)) <= 9 and sum(written) <= 500 * 5  # written once, and rewritten less often than log2 of the 100 batches


def test_while_another_process_compacts_draws_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(draws, "COMPACT_OVER", 4)
    m, L = Model(), Ledger(tmp_path)
    with lease(L.shelf(m, at()).folder / "compaction"): check(L.draw(m, ask(4), 10, at(), flush_every=5), m, ask(4), 10, at())
    assert len(parts(tmp_path)) == 8
    L.draw(m, ask(5), 10, at())
    assert len(parts(tmp_path)) < 8


def test_compaction_leaves_large_parts_and_fresh_temporary_files(tmp_path, monkeypatch):
    m, L = Model(), Ledger(tmp_path)
    L.draw(m, ask(30), 20, at())
    large = parts(tmp_path)[0]
    monkeypatch.setattr(draws, "SMALL_BYTES", large.stat().st_size)
    L.draw(m, ask(30), 30, at(), flush_every=30)
    old, new = large.with_name(".part-old"), large.with_name(".part-new")
    for f in (old, new): f.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * draws.STALE_S,) * 2)
    L.compact()
    assert large in parts(tmp_path) and len(parts(tmp_path)) == 2 and new.exists() and not old.exists()


def test_a_crash_between_merging_and_removing(tmp_path, monkeypatch):
    m, L = Model(), Ledger(tmp_path)
    L.draw(m, ask(4), 10, at(), flush_every=5)
    def crash():
        real = Path.unlink
        count = iter(range(99))
        monkeypatch.setattr(Path, "unlink", lambda p, **kw: os._exit(7) if p.name.startswith("part")
                            and next(count) == 3 else real(p, **kw))
        L.compact()
    assert wait(child(crash)) == 7
    assert sum(pq.read_metadata(p).num_rows for p in parts(tmp_path)) > 40  # duplicates lie there, and count once
    assert L.count() == Ledger(tmp_path).count() == 40
    m.asked = []
    check(Ledger(tmp_path).draw(m, ask(4), 10, at()), m, ask(4), 10, at())
    L.compact()
    assert m.asked == [] and len(parts(tmp_path)) == 1 and L.count() == 40


# killed, and two at once

def test_kill_9_at_many_moments(tmp_path, monkeypatch):
    "25 writers are killed at random moments; nothing is wrong, nothing is double, and each kill costs at most a batch."
    monkeypatch.setattr(draws, "COMPACT_OVER", 8)
    rng, log, flush, requests, n = random.Random(5), tmp_path / "log", 9, ask(60), 40
    folder, kills, progress = tmp_path / "L", 0, [0]
    log.touch()
    for _ in range(25):
        size, more = log.stat().st_size, rng.randrange(600)  # bytes of log, some 13 a draw: however slow the machine is
        pid = child(lambda: Ledger(folder).draw(Model(pause=0.001, log=log), requests, n, at(), flush_every=flush))
        until = time.monotonic() + 10
        while log.stat().st_size - size < more and time.monotonic() < until: time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.01))
        os.kill(pid, signal.SIGKILL)
        kills += wait(pid) == -signal.SIGKILL
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            stored = Ledger(folder).read(["prompt", "draw_index", "text", "token_ids"])
        assert not stored.duplicated(["prompt", "draw_index"]).any() and len(stored) >= progress[-1]
        for r in stored.itertuples():
            ids = Model().whole(r.prompt, r.draw_index)
            assert list(r.token_ids) == ids and r.text == Model().decode(ids)
        progress.append(len(stored))
    assert kills == 25 and len({*progress}) >= 12 and progress[-1] < 60 * n  # they came in the middle of the work
    m = Model(log=log)
    check(Ledger(folder).draw(m, requests, n, at()), m, requests, n, at())
    assert len(m.asked) == 60 * n - progress[-1] and Ledger(folder).count() == 60 * n
    assert len(log.read_text().splitlines()) - 60 * n <= kills * (flush + m.per_list)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_part_has_its_name_only_when_it_is_on_the_disk(tmp_path, monkeypatch, call):
    "Killed after the last byte was handed over but before it has reached the disk, or before the rename: no part, half or whole."
    def crash():
        monkeypatch.setattr(os, call, lambda *a: os._exit(7))
        Ledger(tmp_path).draw(Model(), ask(1), 3, at())
    assert wait(child(crash)) == 7
    assert parts(tmp_path) == [] and len(list(tmp_path.glob("*/.part-*"))) == 1
    m = Model()
    check(Ledger(tmp_path).draw(m, ask(1), 3, at()), m, ask(1), 3, at())
    assert len(m.asked) == 3


def test_two_writers_and_a_reader_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(draws, "COMPACT_OVER", 6)
    log, requests, n = tmp_path / "log", ask(20), 12
    writers = [child(lambda: check(Ledger(tmp_path / "L").draw(Model(pause=0.001, log=log), reqs, n, at(), flush_every=6), Model(), reqs, n,
                                   at()))
               for reqs in (requests[:14], requests[6:], requests[::-1])]
    def read():
        L, seen = Ledger(tmp_path / "L"), 0
        while seen < 20 * n:
            stored = L.read(["prompt", "draw_index", "text"])
            assert len(stored) >= seen and not stored.duplicated(["prompt", "draw_index"]).any()
            seen = len(stored)
    reader = child(read)
    assert [wait(w) for w in writers] == [0, 0, 0] and wait(reader) == 0
    m = Model()
    check(Ledger(tmp_path / "L").draw(m, requests, n, at()), m, requests, n, at())
    assert m.asked == [] and Ledger(tmp_path / "L").count() == 20 * n
    assert len(log.read_text().splitlines()) == 20 * n  # they met, and nothing was made twice
    assert not list((tmp_path / "L").glob("*/_damaged"))


def test_lease_is_exclusive_and_dies_with_its_holder(tmp_path):
    target, ready = tmp_path / "students" / "s1", multiprocessing.Event()
    def hold():
        with lease(target):
            ready.set()
            time.sleep(60)
    pid = child(hold)
    try:
        assert ready.wait(10)
        with pytest.raises(TimeoutError, match="another worker is making .*s1"):
            with lease(target, timeout=0.1): pass
        with lease(tmp_path / "students" / "s2", timeout=0): pass
    finally: os.kill(pid, signal.SIGKILL)
    wait(pid)
    with lease(target, timeout=5) as path: assert path == target


def test_a_lease_lets_one_of_many_make_it(tmp_path):
    target = tmp_path / "corpus"
    def work():
        with lease(target):
            if not target.exists():
                time.sleep(0.02)
                with open(tmp_path / "made", "a") as f: f.write("x")
                target.mkdir()
    pids = [child(work) for _ in range(6)]
    assert [wait(p) for p in pids] == [0] * 6 and (tmp_path / "made").read_text() == "x"


# no place to write

@pytest.fixture
def open_tmp():
    "A folder that another user may reach (pytest's own is private)."
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)
    shutil.rmtree(folder)


def test_read_only_folder(open_tmp):
    L = Ledger(open_tmp / "L")
    L.draw(Model(), ask(2), 2, at())
    L.draw(Model(), ask(2), 2, at(temperature=1.0))
    broken = parts(open_tmp / "L")[-1]
    broken.write_bytes(broken.read_bytes()[:-9])
    subprocess.run(["chmod", "-R", "a-w,a+rX", open_tmp], check=True)
    def use():
        if os.getuid() == 0:  # root may write anywhere
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        m, L = Model(), Ledger(open_tmp / "L")
        good, bad = sorted((at(), at(temperature=1.0)), key=lambda d: L.shelf(m, d).folder == broken.parent)
        check(L.draw(m, ask(2), 2, good), m, ask(2), 2, good)
        for requests, d in ((ask(3), good), (ask(2), bad), (ask(1), at(temperature=2.0))):
            with pytest.raises(PermissionError, match="read-only here.*make it writable") as e: L.draw(m, requests, 2, d)
            assert str(open_tmp / "L") in str(e.value) and m.asked == []  # nothing was paid for
        assert L.count() == 4 and L.damaged == [broken]
    before = {p: p.stat().st_mtime_ns for p in open_tmp.rglob("*")}
    assert wait(child(use)) == 0
    assert before == {p: p.stat().st_mtime_ns for p in open_tmp.rglob("*")}


def full(folder, m, requests):
    with pytest.raises(OSError, match="the disk is full.*everything before it is safe") as e: Ledger(folder).draw(m, requests, 20, at(),
            flush_every=40)
    assert e.value.errno in (errno.ENOSPC, errno.EFBIG) and str(folder) in str(e.value)
    assert not [p for p in Path(folder).glob("*/.*") if p.name != ".compaction.lock"]  # no half a file
    return Ledger(folder).count()


def test_full_disk(tmp_path):
    disk, m = tmp_path / "disk", Model()
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small tmpfs; test_file_size_limit covers the same path")
    try:
        stored = full(disk / "L", m, ask(50))
        assert 40 <= stored < 1000 and stored % 40 == 0
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        m.asked = []
        check(Ledger(disk / "L").draw(m, ask(50), 20, at()), m, ask(50), 20, at())
        assert len(m.asked) == 1000 - stored
    finally: subprocess.run(["umount", str(disk)], check=True)


def test_file_size_limit(tmp_path):
    m = Model()
    Ledger(tmp_path).draw(m, ask(2), 20, at())
    def use():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        assert full(tmp_path, Model(), ask(50)) == 40
    assert wait(child(use)) == 0
    m.asked = []
    check(Ledger(tmp_path).draw(m, ask(50), 20, at()), m, ask(50), 20, at())
    assert len(m.asked) == 960


# any history gives the same view

class History(RuleBasedStateMachine):
    "Draws in any order, restarts, compaction and damage; the view is that of one draw from scratch, and only what is missing is made."

    @initialize()
    def start(self):
        self.folder = Path(tempfile.mkdtemp())
        self.ledger, self.model = Ledger(self.folder), Model()

    def teardown(self): shutil.rmtree(self.folder, ignore_errors=True)

    @rule(prompts=st.lists(st.integers(0, 4), min_size=1, max_size=5), n=st.integers(1, 6), first=st.integers(0, 3),
          limit=st.sampled_from([2, 5, 64]),
          flush=st.integers(1, 9))
    def draw(self, prompts, n, first, limit, flush):
        requests, best = [(f"i{j}", f"prompt {k}") for j, k in enumerate(prompts)], {}
        for p in parts(self.folder):  # what is stored, read naively
            try: rows = pq.read_table(p).to_pylist() if p not in self.torn else []
            except Exception: continue
            for r in rows:
                key, enough = (r["prompt"], r["draw_index"]), 99 if r["finish"] == "stop" else r["n_tok"]
                best[key] = max(best.get(key, 0), enough)
        self.model.asked = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            view = self.ledger.draw(self.model, requests, n, at(limit), first, flush_every=flush)
        check(view, self.model, requests, n, at(limit), first)
        want = {(p, i) for _, p in requests for i in range(first, first + n)}
        assert sorted(self.model.asked) == sorted(k for k in want if best.get(k, 0) < limit)
        self.torn.clear()

    torn: set = set()

    @rule()
    def restart(self): self.ledger = Ledger(self.folder)

    @rule()
    def compact(self):
        if not self.torn: self.ledger.compact()

    @rule(which=st.integers(0, 99), cut=st.integers(1, 400))
    def tear(self, which, cut):
        if there := parts(self.folder):
            part = there[which % len(there)]
            part.write_bytes(part.read_bytes()[:-cut])
            self.torn = self.torn | {part}
            self.ledger = Ledger(self.folder)

    @invariant()
    def nothing_half(self): assert not list(self.folder.glob("*/.part*"))


History.TestCase.settings = hyp(max_examples=5, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck))
TestHistory = History.TestCase


# what was paid for

class Paid(Model):
    "A model whose draws cost money; it may be killed after some of them."
    paid = True

    def __init__(self, die_after=None, **kw):
        super().__init__(per_list=1, **kw)
        self.die_after = die_after

    def complete(self, requests, decoding):
        for k, some in enumerate(super().complete(requests, decoding)):
            if k == self.die_after: os.kill(os.getpid(), signal.SIGKILL)
            yield some


def journals(folder): return sorted(Path(folder).glob("*/.journal-*"))

def killed(folder, after, log=None, requests=3, n=4):
    assert wait(child(lambda: Ledger(folder).draw(Paid(after, log=log), ask(requests), n, at()))) == -signal.SIGKILL


def test_a_journal_outlives_its_writer_and_is_folded_by_the_next(tmp_path):
    killed(tmp_path, 5)
    assert len(journals(tmp_path)) == 1 and not parts(tmp_path) and len(list(tmp_path.glob("*/.claim-*"))) == 2
    m = Paid()
    check(Ledger(tmp_path).draw(m, ask(3), 4, at()), m, ask(3), 4, at())
    assert len(m.asked) == 12 - 5 and not journals(tmp_path) and not list(tmp_path.glob("*/.claim-*"))
    assert Ledger(tmp_path).count() == 12


@pytest.mark.parametrize("look", [lambda L: L.count(), lambda L: len(L.read()), lambda L: int(L.stats().n_draws.sum()),
                                  lambda L: L.compact() or L.count()])
def test_whoever_looks_sees_what_a_journal_holds(tmp_path, look):
    killed(tmp_path, 5)
    assert look(Ledger(tmp_path)) == 5 and len(parts(tmp_path)) == 1


def test_models_that_cost_nothing_keep_no_journal(tmp_path, monkeypatch):
    monkeypatch.setattr(draws, "Journal", None)
    m = Model()
    check(Ledger(tmp_path).draw(m, ask(3), 4, at()), m, ask(3), 4, at())


def test_a_journal_is_synced_draw_by_draw_and_gone_when_its_batch_is_a_part(tmp_path, monkeypatch):
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(fd) or real(fd))
    seen = []
    def look(done, total): seen.append((done, sum(len(p.read_bytes().splitlines()) for p in journals(tmp_path)), len(parts(tmp_path))))
    Ledger(tmp_path).draw(Paid(), ask(1), 10, at(), flush_every=4, progress=look)
    assert seen == [(k, k % 4, k // 4) for k in range(1, 11)] and not journals(tmp_path) and len(synced) >= 10


def test_a_living_writers_journal_is_left_alone(tmp_path):
    slow = child(lambda: Ledger(tmp_path).draw(Paid(pause=0.05), ask(3), 4, at()))
    while not any(p.stat().st_size for p in journals(tmp_path)): time.sleep(0.005)
    assert Ledger(tmp_path).count() == 0 and len(journals(tmp_path)) == 1  # its draws are seen when they are a part
    m = Paid()
    check(Ledger(tmp_path).draw(m, ask(5), 4, at()), m, ask(5), 4, at())
    assert wait(slow) == 0 and len(m.asked) == 8 and Ledger(tmp_path).count() == 20


def test_a_claim_of_a_killed_worker_is_taken_over(tmp_path):
    log = tmp_path / "log"
    pid = child(lambda: Ledger(tmp_path / "L").draw(Paid(die_after=6, pause=0.05, log=log), ask(3), 4, at()))
    while not journals(tmp_path / "L"): time.sleep(0.005)
    m = Paid(log=log)
    check(Ledger(tmp_path / "L").draw(m, ask(3), 4, at()), m, ask(3), 4, at())  # waits for the other, which dies
    assert wait(pid) == -signal.SIGKILL and len(m.asked) == 6
    assert len(log.read_text().splitlines()) == 12 + 1  # the one in the air


def test_a_shorter_claim_does_not_hold_up_a_longer_wish(tmp_path):
    slow = child(lambda: Ledger(tmp_path).draw(Model(pause=0.1, per_list=1), ask(2), 4, at(3)))
    while not list(tmp_path.glob("*/.claim-*.json")): time.sleep(0.005)
    m = Model()
    check(Ledger(tmp_path).draw(m, ask(2), 4, at()), m, ask(2), 4, at())
    assert len(m.asked) == 8 and wait(slow) == 0


def test_threads_of_one_process_share_the_work_too(tmp_path):
    L, log = Ledger(tmp_path / "L"), tmp_path / "log"
    log.touch()
    with ThreadPoolExecutor(4) as pool:
        views = list(pool.map(lambda k: Ledger(tmp_path / "L").draw(Model(pause=0.002, log=log), ask(10), 4, at(), flush_every=5),
                              range(4)))
    for view in views: check(view, Model(), ask(10), 4, at())
    assert len(log.read_text().splitlines()) == 40 and L.count() == 40


def test_a_disk_that_is_full_while_a_draw_is_paid_for(tmp_path):
    m = Paid()
    Ledger(tmp_path).draw(m, ask(1), 1, at())
    def use():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2500, 2500))
        m = Paid()
        with pytest.raises(OSError, match="the disk is full.*everything before it is safe"): Ledger(tmp_path).draw(m, ask(1), 20, at())
        assert 1 < len(m.asked) < 19  # it stops at once
    assert wait(child(use)) == 0
    m = Paid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the line that was cut
        check(Ledger(tmp_path).draw(m, ask(1), 20, at()), m, ask(1), 20, at())
    assert 8 < len(m.asked) < 19


def test_what_a_server_says_of_itself_is_in_the_provenance(tmp_path):
    class Noted(Model):
        def say(self, r, i, decoding):
            c = super().say(r, i, decoding)
            object.__setattr__(c, "note", f"answered:m-{i}")
            return c
    view = Ledger(tmp_path).draw(Noted(), ask(1), 2, at())
    assert [v.split()[-1] for v in view.versions] == ["answered:m-0", "answered:m-1"] and "torch-" in view.versions[0]


# any damage at all

def spoil(data: bytes, how: str, at: int, n: int, byte: int) -> bytes:
    at %= max(1, len(data))
    return dict(cut=data[:at], flip=data[:at] + bytes([data[at] ^ (byte or 1)]) + data[at + 1:] if data else data,
                insert=data[:at] + bytes([byte]) * n + data[at:],
                drop=data[:at] + data[at + n:], repeat=data[:at + n] + data[at:],
                zero=data[:at] + bytes(min(n, len(data) - at)) + data[at + n:])[how]


@pytest.fixture(scope="module")
def damaged_from(tmp_path_factory):
    "A ledger with two parts and the journal of a killed writer."
    folder = tmp_path_factory.mktemp("ledger") / "L"
    Ledger(folder).draw(Paid(), ask(2), 3, at(), flush_every=3)
    killed(folder, 5)
    return folder


@hyp(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 2), how=st.sampled_from(["cut", "flip", "insert", "drop", "repeat", "zero"]), where=st.integers(0, 1 << 20),
       n=st.integers(1, 400),
       byte=st.integers(0, 255))
def test_no_damage_gives_a_wrong_row_or_a_strange_error(damaged_from, which, how, where, n, byte):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / "L"
        shutil.copytree(damaged_from, folder)
        victim = [*parts(folder), *journals(folder)][which]
        victim.write_bytes(spoil(victim.read_bytes(), how, where, n, byte))
        true = {(p, i): Model().decode(Model().whole(p, i)) for _, p in ask(3) for i in range(4)}
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            stored = Ledger(folder).read(["prompt", "draw_index", "text"])
            assert all(true[r.prompt, r.draw_index] == r.text for r in stored.itertuples())
            assert not stored.duplicated(["prompt", "draw_index"]).any()
            m = Paid()
            check(Ledger(folder).draw(m, ask(3), 4, at()), m, ask(3), 4, at())
        assert len(m.asked) == 12 - len(stored) and all("damaged" in str(w.message) for w in caught if w.category is UserWarning)
        assert len(stored) >= 11 - (5 if which == 2 else 3)


def test_reading_what_is_never_there_ends(tmp_path):
    shelf = draws.Shelf(tmp_path)
    turns = []
    def lost(parts, *_):
        turns.append(parts)
        raise FileNotFoundError("part-1.parquet")
    with pytest.raises(FileNotFoundError, match="part-1"): shelf.reading(lost)
    assert 1 < len(turns) < 10_000


@pytest.mark.parametrize("wrong", [dict(temperature=1e-38), dict(top_k=2**40), dict(max_tok=2**31)])
def test_settings_that_no_draw_can_have(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))): Decoding(**wrong)
