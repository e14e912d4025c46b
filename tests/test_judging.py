"""Judging by people: sets are fair and blind, results are checked, the numbers find what was built in, and the page works in a browser."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import krippendorff
import numpy as np
import pandas as pd
import pytest

from cotstudy import claims, judge, judging
from cotstudy.claims import CLAIMS, verdict_table
from cotstudy.evaluate import preference
from desk import cotstudy

CHROMIUM = next((p for p in ("chromium", "chromium-browser", "google-chrome") if shutil.which(p)), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync",
         "--disable-component-update"]


def side(wrong_every, seed=0, n=40, task="toy", words="{a} pens and {b} pens, that is {c} pens."):
    "Sums of which every so-and-so-many-th is one too high."
    rows = []
    for k in range(n):
        a, b = 3 + k, 2 + k * k % 7
        c = a + b + (k % wrong_every == 0)
        rows.append((task, seed, f"e{wrong_every}-{seed}-{task}", f"{task}-{k}", 0, f"Ann has {a} pens and gets {b}. How many has she?",
                     words.format(a=a, b=b, c=c), c == a + b))
    return pd.DataFrame(rows, columns=judge.SIDE)


GOOD, POOR = side(10**6), side(2, words="{a} plus {b} is {c} in all.")


def made(a=GOOD, b=POOR, **more):
    return judge.make_set(a, b, **dict(n=20, names=("good", "poor")) | more)


def says(key, name, choose, n=None, saved="1"):
    answers = [dict(pair=p["id"], criterion=c, choice=choose(p), ms=3000, at="") for p in judging.blind_part(key)["pairs"][:n]
               for c in key["criteria"]]
    return dict(format=judging.RESULT, set=key["id"], judge=name, began="", saved=saved, answers=answers)


def reader(p):
    a, b = map(int, re.findall(r"\d+", p["question"]))
    right = [s for s in ("left", "right") if re.findall(r"\d+", p[s]) == [str(a), str(b), str(a + b)]
             and re.match(r"\d+ (pens and|plus)", p[s])]
    return right[0] if len(right) == 1 else "tie"


# --- a set

def test_a_set_is_balanced_blind_and_repeatable():
    key = made(n=25)
    assert made(n=25) | dict(made=0) == key | dict(made=0) and made(n=25, seed=1)["pairs"] != key["pairs"]
    pairs = [p for p in key["pairs"] if p["kind"] == "pair"]
    assert len(pairs) == 25 and abs(sum(p["a_is"] == "left" for p in pairs) - 12.5) < 1
    of = GOOD.set_index("instance").rationale
    assert all(p[p["a_is"]] == of[p["instance"]] and p["left"] != p["right"] for p in pairs), "where a stands is where its text stands"
    assert len({p["instance"] for p in pairs}) == 25
    checks = [p for p in key["pairs"] if p["kind"] == "check"]
    for block in {p["block"] for p in pairs}: assert any(c["block"] == block for c in checks), "every block has a check"
    assert all(sorted(p["left"].split()) == sorted(p["right"].split()) for p in checks)
    seen = json.dumps(judging.blind_part(key))
    assert not re.search(r"good|poor|a_is|kind|check|correct\": (true|false)|eval|seed|instance", seen)
    page = judging.page_html(key)
    assert not re.search(r"good|poor|a_is|(?:src|href)=|https?://", page) and page.count("<script") == 2


def test_texts_cannot_break_out_of_the_page():
    bad = GOOD.assign(rationale=GOOD.rationale + " </script><script>alert(1)</script> <b>bold</b> {braces} ${x}")
    page = judging.page_html(made(bad, title="<b> & co"))
    assert page.count("<script") == 2 and "<title>&lt;b&gt; &amp; co</title>" in page


def test_the_same_words_are_a_tie_that_nobody_sees():
    key = made(GOOD, side(2), n=10)
    same = [p for p in key["pairs"] if p["kind"] == "same"]
    assert same and not {p["id"] for p in same} & {p["id"] for p in judging.blind_part(key)["pairs"]}
    table = judging.judgements(key, [says(key, "x", reader)])
    assert (table[table.kind == "same"].a == 0.5).all() and set(table[table.kind == "same"].pair) == {p["id"] for p in same}
    assert judging.outcome(table)["n_same"] == len(same)


def test_pairs_in_which_a_side_says_nothing_are_counted():
    assert judge.set_facts(made(n=10))["n_silent"] == 0
    mute = GOOD.assign(rationale=["" if k % 2 else text for k, text in enumerate(GOOD.rationale)])
    key = made(mute, n=10)
    n = sum(not (p["left"] and p["right"]) for p in key["pairs"] if p["kind"] == "pair")
    assert 0 < n < 10 and judge.set_facts(key)["n_silent"] == n


def test_both_correct_seeds_and_tasks():
    key = made(both_correct=True, n=15)
    assert all(p["both_correct"] for p in key["pairs"] if p["kind"] == "pair") and key["subset"] == "both correct"
    seeds = pd.concat([side(3, seed=s, words="{a} plus {b}: {c}") for s in (0, 1, 2)])
    two = made(pd.concat([GOOD, side(10**6, task="other")]), pd.concat([seeds, side(2, task="other", words="{c}")]), n=24)
    pairs = pd.DataFrame([p for p in two["pairs"] if p["kind"] == "pair"])
    assert pairs.task.value_counts().tolist() == [12, 12]
    flipped = made(seeds, GOOD, n=24)
    turns = pd.DataFrame([p for p in flipped["pairs"] if p["kind"] == "pair"]).seed.value_counts()
    assert turns.max() - turns.min() <= 2 and len(turns) == 3


@pytest.mark.parametrize("more, said", [
    (dict(n=0), "at least one"), (dict(n=500), "Ask for fewer"), (dict(criteria=("taste",)), "criteria"), (dict(criteria=()), "criteria"),
    (dict(b=GOOD), "chains that differ"), (dict(n_checks=99), "--checks"), (dict(b=POOR.assign(question="else?")), "another question")])
def test_what_cannot_be_a_set_says_so(more, said):
    with pytest.raises(ValueError, match=said): made(**more)


@pytest.mark.parametrize("text, left", [
    ("5 and 3 is 8. So the answer is 8.", "5 and 3 is 8."), ("5 and 3.5 is 8.5. The correct answer must be (d) 8.5.", "5 and 3.5 is 8.5."),
    ("The answer must be big. 5 and 3 is 8.", "The answer must be big. 5 and 3 is 8."), ("One.\n\n\nTwo.", "One.\nTwo."),
    ("the answer is 4", ""), ("We look for the answer that he gave.", "We look for the answer that he gave."),
    ("A is big. Based on this, the correct answer is (B) no.", "A is big."),
    ("A is big. This leads us to the answer (B) no.", "A is big."),
    ("A is big. It is unlikely that B would fit into it, making option (A) the best choice.",
     "A is big. It is unlikely that B would fit into it."),
    ("A is big. Step 4: So the answer is no, it is. The answer is no.", "A is big."),
    ('A is big. Therefore, the answer to the question "Is A small?" is no.', "A is big."),
    ("A is big, so there is no sure answer to this as it is open.", "A is big, so there is no sure answer to this as it is open."),
    ("The answer is 4, as 2 + 2 is 4. Then 4 + 1 is 5.", "The answer is 4, as 2 + 2 is 4. Then 4 + 1 is 5.")])
def test_answers_are_taken_off(text, left): assert judge.without_answer(text) == left


# --- results

@pytest.mark.parametrize("change, said", [
    (dict(set="other"), "belongs to the set"), (dict(format="x"), "no result"), (dict(judge=" "), "names no judge"),
    (dict(answers=None), "no list"), (dict(answers=[3]), "no answer"), (dict(answers=[dict(pair="p999")]), "no answer"),
    (dict(answers=[dict(pair="p001", criterion="correct", choice="both", ms=1)]), "no answer"),
    (dict(answers=[dict(pair="p001", criterion="fluent", choice="left", ms=1)]), "no answer"),
    (dict(answers=[dict(pair="p001", criterion="correct", choice="left", ms=1)] * 2), "twice"),
    (dict(answers=[dict(pair=["p001"], criterion="correct", choice="left", ms=1)]), "no answer"),
    (dict(answers=[dict(pair="p001", criterion="correct", choice="left", ms=float("nan"))]), "no answer")])
def test_what_is_no_result_is_refused(change, said):
    key = made()
    with pytest.raises(ValueError, match=said): judging.check_result(key, says(key, "x", reader) | change)


def test_ties_only_where_they_are_allowed():
    key = made(ties=False)
    with pytest.raises(ValueError, match="choices: left, right"): judging.check_result(key, says(key, "x", lambda p: "tie"))


def test_the_later_of_two_results_counts(tmp_path):
    key = made()
    judging.write_set(key, tmp_path / "s")
    (tmp_path / "s" / "results").mkdir()
    for k, (saved, side_) in enumerate([("2", "right"), ("1", "left")]):
        (tmp_path / "s" / "results" / f"{k}.json").write_text(json.dumps(says(key, "Ann", lambda p: side_, saved=saved)))
    (tmp_path / "bob.json").write_text(json.dumps(says(key, "Bob", reader)))
    found = judging.read_results(tmp_path / "s", [tmp_path / "bob.json"])
    assert [r["judge"] for r in found] == ["Ann", "Bob"] and found[0]["answers"][0]["choice"] == "right"
    with pytest.raises(ValueError, match="another set"): judging.write_set(made(seed=5), tmp_path / "s")
    (tmp_path / "s" / "results" / "x.json").write_text("{")
    with pytest.raises(ValueError, match="no JSON"): judging.read_results(tmp_path / "s")
    with pytest.raises(FileNotFoundError, match="judge make"): judging.read_key(tmp_path)


# --- numbers

def test_sides_are_named_again_and_inattention_does_not_count():
    key = made()
    table = judging.judgements(key, [says(key, "Ann", reader), says(key, "Bob", reader), says(key, "Cyd", lambda p: "left")])
    assert judging.attention(table) == dict(n_judges=3, n_passed=2, n_checks=9, n_right=judging.attention(table)["n_right"])
    assert (table[(table.kind == "check") & table.passed].a == 1).all() and not set(table.judge) & {"Ann", "Bob", "Cyd"}
    o = judging.outcome(table)
    poor_right = pd.DataFrame(key["pairs"]).query("kind == 'pair'").both_correct.mean()
    assert o["win_rate"] == pytest.approx(1 - poor_right / 2) and o["n_judges"] == 2 and o["alpha"] == 1 and o["lo"] > 0.5
    assert judging.outcome(table, both_correct=True)["win_rate"] == 0.5
    with pytest.raises(ValueError, match="margin"): judging.outcome(table, margin=0)


def world(rng, share=0.6, n=60, n_judges=3, n_seeds=3, judge_sd=0.0, seed_sd=0.0, pair_sd=0.8):
    "Made-up judgements with a known mean preference."
    draws = np.random.default_rng(0).normal(0, np.sqrt(judge_sd**2 + seed_sd**2 + pair_sd**2), 20_000)
    shifts = np.linspace(-3, 3, 601)
    shift = shifts[np.argmin(np.abs([(1 / (1 + np.exp(-(s + draws)))).mean() - share for s in shifts]))]
    who, run, pair = rng.normal(0, judge_sd, n_judges), rng.normal(0, seed_sd, n_seeds), rng.normal(0, pair_sd, n)
    rows = [("t", k % n_seeds, k, j, float(rng.random() < 1 / (1 + np.exp(-(shift + who[j] + run[k % n_seeds] + pair[k])))))
            for k in range(n) for j in range(n_judges)]
    return pd.DataFrame(rows, columns=["task", "seed", "pair", "judge", "a"])


@pytest.mark.parametrize("more", [dict(), dict(judge_sd=0.6, n_judges=6), dict(seed_sd=0.6, n_seeds=4), dict(n_judges=1, n_seeds=1)],
                         ids=["pairs", "judges", "seeds", "one judge"])
def test_intervals_of_preferences_hold_what_they_promise(more):
    rng = np.random.default_rng(1)
    hits = [lo <= 0.1 <= hi for _ in range(200) for lo, hi in [preference(world(rng, **more), 200).interval()]]
    assert np.mean(hits) >= 0.91, np.mean(hits)


def test_tasks_count_alike_and_swapping_sides_swaps_the_sign():
    rng = np.random.default_rng(2)
    a, b = world(rng, 0.8, 20), world(rng, 0.4, 200).assign(task="u")
    e = preference(pd.concat([a, b.assign(pair=b.pair + 1000)]))
    assert e.value == pytest.approx((preference(a).value + preference(b).value) / 2) and e.n == 220 and e.n_seeds == 3
    assert preference(a.assign(a=1 - a.a)).value == pytest.approx(-preference(a).value)
    with pytest.raises(ValueError, match="twice"): preference(pd.concat([a, a]))
    with pytest.raises(ValueError, match="lack"): preference(a.drop(columns="judge"))


def test_agreement_is_the_library_s_over_what_was_seen():
    key, rng = made(n=30), np.random.default_rng(3)
    noisy = [says(key, n, lambda p: reader(p) if rng.random() < 0.8 else str(rng.choice(["left", "right", "tie"]))) for n in "abc"]
    table = judging.judgements(key, noisy).assign(passed=True)
    shown = table[table.kind == "pair"]
    grid = shown.assign(v=shown.choice.map(dict(left=0, tie=0.5, right=1))).pivot(index="judge", columns="pair", values="v").to_numpy(float)
    found = judging.outcome(table)
    assert found["alpha"] == pytest.approx(krippendorff.alpha(grid, level_of_measurement="interval"))
    assert found["alpha_lo"] < found["alpha"] < found["alpha_hi"]
    assert judging.agreement(table[table.judge == table.judge.iloc[0]]) is None


def test_equivalence_is_two_one_sided_tests():
    key = made(n=30)
    even = judging.judgements(key, [says(key, n, lambda p: "tie") for n in "abc"]).assign(passed=True)
    assert judging.outcome(even, 0.1)["equivalent"] and not judging.outcome(even, 0.001)["equivalent"]
    o = judging.outcome(judging.judgements(key, [says(key, "x", reader)]), 0.1)
    assert not o["equivalent"] and o["p_equivalent"] > 0.05


# --- claims

def joined(seeds=(0, 1), teacher=False):
    "Items of the two sides of scotd-H11 (or H12) as claims read them."
    rows = []
    for method, s in [("cot", x) for x in seeds] + [("teacher" if teacher else "zero_shot_cot", 0)]:
        rows += [dict(task="relations", student="pocket/s", method=method, seed=s, instance=str(k), score=float(k % 2), sound=float(k % 2),
                      supervision="full", decoding="greedy", n_rationales=8, eval_id=f"{method}-{s}") for k in range(30)]
    return pd.DataFrame(rows)


def people(share, seeds=(0, 1), judges=3, n=400, b="zero_shot_cot-0", **more):
    rng = np.random.default_rng(0)
    rows = [dict(set_id="s", subset="all", pair=f"p{k}", kind="pair", task="relations", seed=seeds[k % len(seeds)], criterion="correct",
                 a_eval_id=f"cot-{seeds[k % len(seeds)]}", b_eval_id=b, judge=f"j{j}", a=float(rng.random() < share), passed=True)
            for k in range(n) for j in range(judges)]
    return pd.DataFrame(rows).assign(**more)


H11, H12 = (next(c for c in CLAIMS if c.id == name) for name in ("scotd-H11", "scotd-H12"))


def test_people_replace_the_proxy():
    proxy = verdict_table(joined(), [H11]).iloc[0]
    assert proxy.verdict == "proxy only" and proxy.kind == "proxy"
    asked = verdict_table(joined(), [H11], people=people(0.65)).iloc[0]
    assert asked.verdict == "reproduced" and asked.kind == "difference" and "1200 judgements of 400 pairs by 3 judges" in asked.reason
    assert asked.effect == pytest.approx(0.15, abs=0.03)
    flipped = people(0.65).rename(columns=dict(a_eval_id="b_eval_id", b_eval_id="a_eval_id")).assign(a=lambda f: 1 - f.a)
    assert verdict_table(joined(), [H11], people=flipped).iloc[0].verdict == "reproduced", "either side may come first"
    assert verdict_table(joined(), [H11], people=people(0.35)).iloc[0].verdict == "contradicted"
    on_a_par = verdict_table(joined(teacher=True), [H12], people=people(0.5, b="teacher-0", n=3000, judges=2)).iloc[0]
    assert on_a_par.kind == "equivalence" and on_a_par.verdict == "reproduced"


@pytest.mark.parametrize("said, verdict", [
    (people(0.9, judges=1), "inconclusive"), (people(0.9, seeds=(0,)), "inconclusive"), (people(0.9, passed=False), "proxy only"),
    (people(0.9, kind="check"), "proxy only"), (people(0.9, criterion="fluent"), "proxy only"), (people(0.9, b="other"), "proxy only"),
    (people(0.9, subset="both correct"), "proxy only")],
    ids=["one judge", "one seed", "inattentive", "checks", "another criterion", "other sides", "a subset"])
def test_what_people_said_elsewhere_decides_nothing(said, verdict):
    found = verdict_table(joined(), [H11], people=said).iloc[0]
    assert found.verdict == verdict
    if verdict == "inconclusive": assert "cannot decide" in found.reason


# --- the page in a browser

@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None: pytest.skip("no Chromium here: install one to test the judging page")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    with api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=shutil.which(CHROMIUM), args=QUIET)
        yield b
        b.close()


def opened(context, folder, name="Ann"):
    page = context.new_page()
    page.said = []
    page.on("console", lambda m: page.said.append(m.text))
    page.on("pageerror", lambda e: page.said.append(str(e)))
    page.on("request", lambda r: page.said.append(r.url) if not r.url.startswith(("file:", "blob:")) else None)
    page.goto(f"file://{folder}/judge.html")
    if name:
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        page.wait_for_selector(".cj-chains")
    return page


def progress(page): return page.locator(".cj-progress span").inner_text().split(" judged")[0]


def press(page, *keys):
    for k in keys:
        page.wait_for_timeout(270)
        page.keyboard.press(k)


def judge_all(page, choose):
    while page.locator(".cj-chains").count():
        texts = page.locator(".cj-chain p").all_inner_texts()
        shown = dict(question=page.locator(".cj-question p").inner_text(), left=texts[0], right=texts[1])
        press(page, dict(left="1", right="2", tie="0")[choose(shown)])


def saved(page, path):
    with page.expect_download() as got: page.get_by_role("button", name="Save result").click()
    got.value.save_as(path)
    return path


def test_two_people_judge_a_file_by_keyboard(browser, tmp_path):
    key = made(n=8, criteria=("correct", "fluent"))
    folder = judging.write_set(key, tmp_path / "set")
    context = browser.new_context(viewport=dict(width=1200, height=800))
    page = opened(context, folder)
    assert progress(page) == "0 of 20"
    press(page, "1", "ArrowRight", "0", "ArrowDown", "x")
    assert progress(page) == "4 of 20"
    press(page, "Backspace", "ArrowUp")
    assert page.locator(".cj-choices .cj-chosen").get_attribute("data-choice") == "tie"
    press(page, "2")
    page.close()
    page = opened(context, folder, name=None)  # somebody comes back to the page
    page.get_by_role("button", name="Ann").click()
    assert progress(page) == "4 of 20"
    judge_all(page, reader)
    first = saved(page, tmp_path / "ann.json")
    page.get_by_role("button", name="Somebody else judges").click()
    page.keyboard.type("Bob")
    page.keyboard.press("Enter")
    assert progress(page) == "0 of 20"
    judge_all(page, reader)
    second = saved(page, tmp_path / "bob.json")
    assert page.said == [], "no error, and no request to anybody"
    results = judging.read_results(folder, [first, second])
    assert [len(r["answers"]) for r in results] == [20, 20]
    orders = [[a["pair"] for a in r["answers"]] for r in results]
    assert orders[0] != orders[1], "each has an order of their own"
    table = judging.judgements(key, results)
    mine = table[(table.kind == "pair") & (table.judge == table.judge.iloc[-1])]
    assert (mine.set_index("pair").a[mine.set_index("pair").both_correct] == 0.5).all() and (table.ms > 200).all()


def test_a_saved_result_goes_on_elsewhere_and_a_foreign_one_is_refused(browser, tmp_path):
    key = made(n=8)
    folder = judging.write_set(key, tmp_path / "set")
    page = opened(browser.new_context(), folder)
    press(page, "1", "2", "1")
    half = saved(page, tmp_path / "half.json")
    other = browser.new_context()
    page = opened(other, folder, name=None)
    page.locator("summary").click()
    (tmp_path / "foreign.json").write_text(json.dumps(says(made(seed=9), "X", reader)))
    page.set_input_files("input[type=file]", tmp_path / "foreign.json")
    page.wait_for_function("document.querySelector('.cj-live').textContent.includes('no result')")
    page.set_input_files("input[type=file]", half)
    page.wait_for_selector(".cj-chains")
    assert progress(page) == "3 of 10" and page.said == []


@pytest.mark.parametrize("width", [1200, 400])
def test_the_page_fits_and_can_be_used_by_everybody(browser, tmp_path, width):
    folder = judging.write_set(made(GOOD.assign(rationale=GOOD.rationale + " word" * 150), n=5), tmp_path / "set")
    page = opened(browser.new_context(viewport=dict(width=width, height=800)), folder)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing runs out of the page"
    for button in page.locator(".cj-choices button").all():
        box = button.bounding_box()
        assert box["height"] >= 44 and box["y"] + box["height"] <= 800, "choices are large and always in sight"
    side_by_side = page.locator(".cj-chain").nth(0).bounding_box()["y"] == page.locator(".cj-chain").nth(1).bounding_box()["y"]
    assert side_by_side == (width == 1200)
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", "focus is visible"
    assert page.locator("[aria-live]").count() == 1 and page.locator("h2").inner_text() == judging.CRITERIA["correct"]


def test_a_class_judges_under_voila(browser, tmp_path):
    pytest.importorskip("voila", reason="voila is not installed: pip install -e '.[judge]'")
    pytest.importorskip("anywidget", reason="anywidget is not installed: pip install -e '.[judge]'")
    folder, port = judging.write_set(made(n=8), tmp_path / "set"), 18866
    server = subprocess.Popen([sys.executable, "-c", f"from cotstudy.judging import serve; serve({str(folder)!r}, {port})"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    elsewhere = []
    try:
        wait_for(f"http://localhost:{port}/static/")
        for visit in range(2):
            page = browser.new_context().new_page()
            page.set_default_timeout(180_000)
            page.on("response", lambda r: elsewhere.append(r.url) if not r.url.startswith(("http://localhost", "data:", "blob:")) else None)
            page.goto(f"http://localhost:{port}/")
            page.wait_for_function("document.activeElement?.id === 'cj-name'")  # once it is shown
            page.keyboard.type("Ann")
            page.keyboard.press("Enter")
            page.wait_for_selector(".cj-chains")
            begun = time.time()
            while progress(page) != f"{3 * visit} of 10" and time.time() - begun < 30: page.wait_for_timeout(200)  # a slow machine
            assert progress(page) == f"{3 * visit} of 10", "who comes back goes on"
            press(page, "1", "2", "0")
            page.wait_for_timeout(1500)
        assert len(judging.read_results(folder)[0]["answers"]) == 6 and not elsewhere
    finally:
        stop(server)


def wait_for(url, seconds=180):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try: return urllib.request.urlopen(url, timeout=5)
        except urllib.error.HTTPError: return None  # it answers
        except OSError: time.sleep(0.5)
    raise TimeoutError(url)


def stop(server):
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(20)


# --- from a study, from recorded chains, to claims, by command

def test_from_a_study_to_a_claim(studied, tmp_path, browser, monkeypatch):
    monkeypatch.setattr(claims, "read_solutions", lambda student: False)  # the claim is about novices; the pocket models are none
    out = tmp_path / "set"
    facts = json.loads(cotstudy("judge", "make", out, "--study", "judged", "--claim", "scotd-H11", "--n", 10, "--json").stdout)
    assert facts["n_pairs"] == 10 and facts["tasks"] == "relations"
    key = judging.read_key(out)
    seeds = {p["seed"] for p in key["pairs"] if p["kind"] == "pair"}
    assert seeds == {0, 1}
    page = opened(browser.new_context(), out)
    judge_all(page, lambda p: "left")
    saved(page, tmp_path / "ann.json")
    checks = {p["question"]: p for p in key["pairs"] if p["kind"] == "check"}
    attentive = lambda p: next(q["a_is"] for q in key["pairs"] if q["left"] == p["left"] and q["right"] == p["right"])
    for name in ("bob", "cyd"): (tmp_path / f"{name}.json").write_text(json.dumps(says(key, name, attentive)))
    told = cotstudy("judge", "score", out, tmp_path / "ann.json", tmp_path / "bob.json", tmp_path / "cyd.json", "--study", "judged")
    won = 100 * (1 - facts["n_same"] / (10 + facts["n_same"]) / 2)  # every pair but those of the same words
    assert "2 of 3 judges passed" in told.stdout and f"the first wins {won:.1f} %" in told.stdout, told.output
    table = json.loads(cotstudy("claims", "judged", "--json").stdout)["claims"]
    found = {c["id"]: c for c in table}
    assert found["scotd-H11"]["kind"] == "difference" and found["scotd-H11"]["verdict"] == "reproduced"
    assert "by 2 judges" in found["scotd-H11"]["reason"] and found["scotd-H12"]["verdict"] == "proxy only" and checks
    again = cotstudy("judge", "score", out, tmp_path / "bob.json", "--study", "judged")
    assert again.exit_code == 0 and judge.people_of("judged").judge.nunique() == 1, "the same set is replaced"
    (studied / "judged" / judge.PEOPLE).unlink()


@pytest.mark.parametrize("args, said", [
    (("--a", "method=cot", "--b", "method=zero_shot_cot"), "n_rationales"),
    (("--a", "method=cot,n_rationales=2,decoding=greedy", "--b", "method=label_only"), "without a rationale"),
    (("--a", "metod=cot", "--b", "method=cot"), "no column"), (("--claim", "ho-H1"), "scotd-H11"), (("--a", "method=cot"), "two sides"),
    (("--a", "none.jsonl", "--b", "none.jsonl"), "no file"), (("--claim", "scotd-H11", "--student", "pocket/l"), "for pocket/l"),
    (("--claim", "scotd-H11"), "a student that has read no worked solutions"),
    (("--a", "method=cot", "--b", "method=cot", "--student", "pocket/l"), "student=")])
def test_wrong_sides_are_one_line(studied, tmp_path, args, said):
    result = cotstudy("judge", "make", tmp_path / "set", "--study", "judged", *args)
    assert result.exit_code == 1 and said in result.stderr and len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_recorded_gpt3_chains_are_judged(data_dir, desk, tmp_path, browser):
    cotstudy("import-recorded", "strategyqa_train__gpt3_mario", "--out", "gpt3.jsonl")
    cotstudy("import-recorded", "strategy_qa_train__gpt35_kard10", "--conditioned", "--out", "gpt35.jsonl")
    made_ = cotstudy("judge", "make", "set", "--a", "gpt3.jsonl", "--b", "gpt35.jsonl", "--n", 6, "--no-ties", "--json")
    assert json.loads(made_.stdout)["n_pairs"] == 6, made_.stderr
    page = opened(browser.new_context(viewport=dict(width=400, height=800)), Path("set").absolute())
    assert page.locator(".cj-choices button").count() == 2
    longer = lambda p: "left" if len(p["left"]) > len(p["right"]) else "right"
    judge_all(page, longer)
    saved(page, "ann.json")
    told = json.loads(cotstudy("judge", "score", "set", "ann.json", "--json").stdout)
    assert told["n_judges"] == 1 and page.said == []


def test_a_set_leaves_another_alone(tmp_path):
    key = dict(format=judging.KEY, id="one", title="t", ties=True, criteria=[], pairs=[])
    judging.write_set(key, tmp_path / "a")
    judging.write_set(key, tmp_path / "a")
    with pytest.raises(ValueError, match="another set"): judging.write_set(key | dict(id="two"), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "judge.html").write_text("mine")
    with pytest.raises(ValueError, match="somebody else"): judging.write_set(key, tmp_path / "b")
    assert (tmp_path / "b" / "judge.html").read_text() == "mine"
