"""What a budget promises: the bill of the server itself is at most one request over it, whatever the server says."""
import json
import os
import signal
import time
import warnings
from contextlib import suppress

import pytest

from cotstudy.decoding import Decoding, Request
from cotstudy.draws import Ledger
from cotstudy.servers import PRICES, Budget, OverBudget, Price, budget, named_options
from odd import HOT, draw, head, model, raw


def test_the_budget_is_never_passed_and_nothing_is_lost(odd):
    server, got = model(odd, budget=Budget(tokens=200), concurrency=3), []
    with pytest.raises(OverBudget, match="the budget is 200"):
        for part in server.complete([Request("Why?", tuple(range(100)))], HOT): got += part
    b = server.budget
    assert b.n_in + b.n_out == 15 * len(odd.asked) <= 200 and len(got) == len(odd.asked) - 3 > 0 and (b.held_in, b.held_out) == (0, 0)
    with pytest.raises(ValueError, match="needs a price"): Budget(money=1)
    purse = Budget(money=1e-4, price=Price(1.0, 2.0, "2026-11-23"))
    with pytest.raises(OverBudget, match="prices of 2026-11-23"): draw(model(odd, budget=purse), 50)
    assert 0 < purse.cost(purse.n_in, purse.n_out) <= 1e-4


def test_where_a_server_does_not_count_all_that_was_set_aside_counts(odd):
    odd.behave = lambda body, n: (200, odd.good(body) | dict(usage=None))
    server, got = model(odd, budget=Budget(tokens=400, unseen_tok=0), concurrency=2), []
    with pytest.raises(OverBudget):
        for part in server.complete([Request("Why?", tuple(range(100)))], HOT): got += part
    assert len(odd.asked) == 3 + len(got) < 12 and {c.n_tok for c in got} == {None}
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


def test_processes_share_one_book(tmp_path):
    first, second = (Budget(tokens=300, file=tmp_path / "book.json") for _ in range(2))
    first.reserve(100, 50)
    with pytest.raises(OverBudget, match="301 tokens"): second.reserve(100, 51)
    first.settle((100, 50), 10, 5)
    assert second.reserve(100, 185) == (100, 185)
    for odd in (dict(tokens=-1), dict(tokens=9, unseen_tok=-1)):
        with pytest.raises(ValueError, match="0 or more"): Budget(**odd)
    assert named_options("api:m?tokens=9&unseen_tok=7")[1]["budget"].unseen_tok == 7


def test_what_a_killed_process_had_in_the_air_counts(tmp_path):
    book = tmp_path / "book.json"
    if not (pid := os.fork()):
        Budget(tokens=300, file=book).reserve(100, 100)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    mine = Budget(tokens=300, file=book)
    with pytest.raises(OverBudget): mine.reserve(50, 51)
    assert mine.reserve(50, 50) and (mine.n_in, mine.n_out) == (100, 100)
    assert json.loads(book.read_text()) == [100, 100, 50, 50]
    (old := tmp_path / "old.json").write_text("[10, 20, 30, 40]")  # as they were kept before; nobody knows who had set aside what
    assert Budget(tokens=200, file=old).reserve(50, 50) and json.loads(old.read_text()) == [40, 60, 50, 50]
    book.write_text("[")
    with pytest.raises(ValueError, match="no book of a budget"): mine.reserve(1, 1)


# the bill

CAP, TOK = 10_000, 100
LIES = [dict(prompt_tokens=1, completion_tokens=1), dict(prompt_tokens=1, completion_tokens=100),
        dict(prompt_tokens=4000, completion_tokens=1)]
MUTE = [None, {}, "none", [1], dict(prompt_tokens=0, completion_tokens=0), dict(prompt_tokens=-9, completion_tokens=-9),
        dict(prompt_tokens="9", completion_tokens="9"), dict(prompt_tokens=None), dict(prompt_tokens=1.5, completion_tokens=True)]
SLOW = raw(head(500), *[b" "] * 20, pause_s=0.02)

# what it does with request n, where it does not just answer with an honest bill; every request is billed
FAULTS = {
    "honest": lambda n, body: None, "three fail": lambda n, body: (500, "<html>") if n < 4 else None,
    "six fail": lambda n, body: (502, "") if n < 7 else None, "half fail": lambda n, body: (500, "<html>") if n % 2 else None,
    "most fail": lambda n, body: (503, dict(error="busy")) if n % 5 > 1 else None, "all fail": lambda n, body: (500, "<html>"),
    "fails from the 20th on": lambda n, body: (500, "") if n > 20 else None,
    "408": lambda n, body: (408, "") if n % 3 > 1 else None,
    "200 with 503 inside": lambda n, body: (200, dict(error=dict(code=503))) if n % 3 == 0 else None,
    "breaks off": lambda n, body: (200, raw(head(500), b'{"choices": [')) if n % 2 else None,
    "hangs up": lambda n, body: (200, raw()) if n % 2 else None, "slow": lambda n, body: (200, SLOW) if n % 4 == 0 else None,
    "slow at first": lambda n, body: (200, SLOW) if n < 4 else None, "only slow": lambda n, body: (200, SLOW),
    "aborts": lambda n, body: (200, dict(choices=[dict(text="ha", finish_reason="abort")])) if n % 2 else None,
    "filters": lambda n, body: (400, dict(error=dict(code="content_filter"))) if n % 2 else None,
    "nonsense in the end": lambda n, body: (200, "<html>") if n == 15 else None}


def bill_after(odd, folder, fault, usage, cost, concurrency, thought=0, **limits):
    "Draw until the budget or the server stops us; the server's bill, and the largest request on it."
    odd.charge = lambda body, n: (cost(n), body["max_tokens"] + thought)
    def answer(body, n):
        told = dict(prompt_tokens=cost(n), completion_tokens=body["max_tokens"], total_tokens=cost(n) + body["max_tokens"] + thought)
        return fault(n, body) or (200, odd.good(body, usage=usage(n) if usage else told))
    odd.behave = answer
    slow = fault in [FAULTS[name] for name in FAULTS if "slow" in name]  # the others never wait, however busy this machine is
    server = model(odd, budget=Budget(**dict(tokens=CAP) | limits), concurrency=concurrency, attempts=7, timeout_s=0.2 if slow else 30)
    how, asked = Decoding(max_tok=TOK), [(f"i{k}", f"How many are {k} pens and a pen?") for k in range(400)]
    with pytest.raises((OverBudget, ConnectionError, ValueError)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Ledger(folder).draw(server, asked, 1, how)
    assert server.budget.held_in == server.budget.held_out == 0
    if fault is FAULTS["honest"]: assert Ledger(folder).count() == sum(p != "Ten random digits:" for p, *_ in odd.bill)
    return odd.total, max(a + b for *_, a, b in odd.bill)


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("cost", [20, 4000])
@pytest.mark.parametrize("name", FAULTS)
def test_the_servers_bill_is_at_most_one_request_over_the_cap(odd, tmp_path, name, cost, concurrency):
    total, one = bill_after(odd, tmp_path, FAULTS[name], None, lambda n: cost, concurrency)
    assert total <= CAP + one
    unused = name in ("all fail", "only slow", "nonsense in the end", "fails from the 20th on") or cost == 4000
    assert unused or name in ("six fail", "three fail", "slow at first") or total >= 0.5 * CAP


@pytest.mark.parametrize("concurrency", [1, 8])
@pytest.mark.parametrize("cost", [20, 4000])
@pytest.mark.parametrize("usage", [*MUTE, *LIES], ids=str)
def test_a_server_that_hides_what_it_bills_is_given_up_in_time(odd, tmp_path, usage, cost, concurrency):
    total, one = bill_after(odd, tmp_path, FAULTS["honest"], lambda n: usage, lambda n: cost, concurrency)
    assert total <= CAP + one
    odd.asked.clear(), odd.bill.clear()  # and one that is known to add no more than this is used up to the cap
    total, one = bill_after(odd, tmp_path / "told", FAULTS["half fail"], lambda n: usage, lambda n: cost, concurrency, unseen_tok=cost)
    assert total <= CAP + one and (total >= 0.5 * CAP or usage == LIES[2])


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_server_that_tells_now_and_then_or_changes_is_held_to_the_cap(odd, tmp_path, concurrency):
    honest = lambda n: dict(prompt_tokens=300, completion_tokens=TOK)
    for k, (usage, cost) in enumerate([
            (lambda n: honest(n) if n % 3 == 1 else None, lambda n: 300), (lambda n: honest(n) if n % 3 else LIES[0], lambda n: 300),
            (lambda n: None if n < 2 else honest(n), lambda n: 300), (None, lambda n: 20 if n < 15 else 4000),
            (None, lambda n: 4000 if n % 10 == 0 else 20), (None, lambda n: 20 if n < 15 else 8000)]):
        odd.asked.clear(), odd.bill.clear()
        total, one = bill_after(odd, tmp_path / str(k), FAULTS["honest"], usage, cost, concurrency)
        assert 0.4 * CAP <= total <= CAP + one, k


def test_where_there_is_room_requests_run_side_by_side_and_the_cap_holds(odd, tmp_path):
    slow = lambda n, body: time.sleep(0.03)
    total, one = bill_after(odd, tmp_path, slow, None, lambda n: 1000 if n < 50 else 7000, 8, tokens=150_000)
    assert odd.most > 4 and 75_000 <= total <= 150_000 + one


def test_thoughts_beyond_the_limit_are_expected_after_the_first(odd, tmp_path):
    "A server that thinks for 20,000 tokens where 100 were allowed, and says so in its total alone."
    slow = lambda n, body: time.sleep(0.03)
    total, one = bill_after(odd, tmp_path, slow, None, lambda n: 20, 8, tokens=400_000, thought=20_000)
    assert odd.most > 4 and 200_000 <= total <= 400_000 + one


def test_who_waits_for_those_in_the_air_is_told_what_room_there_is():
    one, jump = Budget(tokens=30_000), 8192
    assert one.reserve(100, 100) and one.book.flying == 1
    one.settle((100, 100), 100, 100)  # a bill was seen
    assert [one.reserve(900, 100, patient=True) for _ in range(5)] == [(900, 100)] * 4 + [None]  # 200 + 5 * 1,000 + 4 * 8,192 > 30,000
    assert one.book.flying == 4 and 200 + 5 * 1000 + 3 * jump <= 30_000 < 200 + 5 * 1000 + 4 * jump
    assert one.reserve(900, 100)  # who does not ask for patience is only held to what is expected
    purse = Budget(money=0.018, price=Price(1.0, 2.0, "2026-11-23"))  # room for 8,192 tokens in, not for 8,192 tokens out
    assert purse.reserve(100, 100) and purse.reserve(100, 100) and not purse.crowded(100, 100, 1)
    purse.settle((100, 100), 100, 500, (0, 400))
    assert purse.crowded(100, 500, 1) and purse.reserve(100, 500, patient=True) is None, "it is known to go on beyond its limit"


def test_who_waits_in_vain_is_told_for_whom(odd, tmp_path, monkeypatch):
    "Another machine's process set tokens aside, and never comes back."
    (book := tmp_path / "book.json").write_text("[100, 100, 9000, 0]")
    book.with_suffix(".book").write_text(json.dumps(dict(n_in=100, n_out=100, told=True, held={"elsewhere:1": [9000, 0]})))
    monkeypatch.setattr("cotstudy.servers._STILL_S", 0.2)
    with pytest.raises(OverBudget, match="elsewhere:1 set tokens aside.*nothing has come back"):
        list(model(odd, budget=Budget(tokens=CAP, file=book), timeout_s=0.1).complete([Request("Why?")], Decoding(max_tok=TOK)))
    assert not odd.asked


def test_a_lie_that_could_be_true_needs_to_be_told_apart(odd, tmp_path):
    "It says what its words would cost and bills thoughts that nobody sees: with unseen_tok the cap holds."
    odd.behave = lambda body, n: None
    lie = dict(prompt_tokens=12, completion_tokens=6)
    total, one = bill_after(odd, tmp_path, FAULTS["honest"], lambda n: lie, lambda n: 20, 8, unseen_tok=4)
    assert 0.5 * CAP <= total <= CAP + one


def test_who_is_in_the_dark_says_so(odd):
    odd.behave = lambda body, n: (200, odd.good(body, usage=None))
    with pytest.raises(OverBudget, match="2 requests were sent and nobody says what they cost.*unseen_tok=0"):
        list(model(odd, budget=Budget(tokens=CAP)).complete([Request(str(k)) for k in range(9)], Decoding(max_tok=9)))


def test_processes_begin_one_at_a_time_until_a_bill_was_seen(odd, tmp_path):
    "Eight workers with one book: the first answer shows what a request costs, the others wait for it."
    odd.charge = lambda body, n: (4000, 100)
    odd.behave = lambda body, n: (500, "<html>") if n < 3 else (200, odd.good(body, usage=dict(prompt_tokens=4000, completion_tokens=100)))
    pids = []
    for k in range(8):
        if not (pid := os.fork()):
            with suppress(OverBudget):
                server = model(odd, budget=Budget(tokens=CAP, file=tmp_path / "book.json"), concurrency=8)
                list(server.complete([Request(f"Why {k} {i}?") for i in range(20)], Decoding(max_tok=TOK)))
            os._exit(0)
        pids.append(pid)
    for pid in pids: os.waitpid(pid, 0)
    assert 2 * 4100 <= odd.total <= CAP + 4100


def test_processes_leave_each_other_room_for_a_jump(odd, tmp_path):
    "Four workers with one book and two requests each in the air, when near the cap a request comes to cost 6,000 tokens more."
    cost = lambda n: 1000 if n < 50 else 7000
    odd.charge = lambda body, n: (cost(n), TOK)
    def answer(body, n):
        time.sleep(0.03)
        return 200, odd.good(body, usage=dict(prompt_tokens=cost(n), completion_tokens=TOK))
    odd.behave, pids = answer, []
    for k in range(4):
        if not (pid := os.fork()):
            with suppress(OverBudget):
                server = model(odd, budget=Budget(tokens=64_000, file=tmp_path / "book.json"), concurrency=2, timeout_s=30)
                list(server.complete([Request(f"Why {k} {i}?") for i in range(99)], Decoding(max_tok=TOK)))
            os._exit(0)
        pids.append(pid)
    for pid in pids: os.waitpid(pid, 0)
    assert 30_000 <= odd.total <= 64_000 + 7100


def test_a_cap_in_money_holds_against_the_bill(odd):
    odd.charge = lambda body, n: (3000, 100)
    odd.behave = lambda body, n: (200, odd.good(body, usage=dict(prompt_tokens=3000, completion_tokens=100)))
    purse = Budget(money=0.02, price=Price(1.0, 2.0, "2026-11-23"))
    with pytest.raises(OverBudget, match="prices of"):
        list(model(odd, budget=purse, concurrency=8).complete([Request(str(k)) for k in range(99)], Decoding(max_tok=100)))
    billed = sum(a + 2 * b for *_, a, b in odd.bill) / 1e6
    assert 0.01 < billed <= 0.02 + 0.0032


