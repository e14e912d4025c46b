"""The pinned loaders: bytes, counts, splits, renderings, leakage, recorded completions."""
import gzip, hashlib, json, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cotstudy import sources
from cotstudy.instances import few_samples, ho_split, leakage
from cotstudy.recorded import recorded
from cotstudy.sources import EXEMPLARS, PINS, SOURCES, Pinned, at_hand, fetch, load_source, published_exemplars, read_rows
from cotstudy.tasks import load

SHIPPED = {name: name for name in SOURCES if name not in ("aqua", "anli", "sst2", "imdb", "aqua_heldout")} | dict(
    aqua_flan="aqua", anli_heldout="anli", sst2_sentences="sst2", imdb_sample="imdb")  # source -> file in tasks/
RANDOM = [n for n, s in SOURCES.items() if s.parts[0].split == "all"]


def shipped(data_dir, name):
    return [json.loads(line) for line in gzip.open(data_dir / "tasks" / f"{name}.jsonl.gz", "rt", encoding="utf-8")]


def split_file(data_dir, name):
    return json.loads((data_dir / "raw/reasoning-teacher/data/split" / f"{name}.json").read_text())


def numbers(items): return [int(i.id.rsplit("-", 1)[1]) for i in items]


@pytest.mark.parametrize("name", SHIPPED)
def test_equals_the_collected_tasks(name, data_dir):
    task, want = load_source(name, n_selection=0 if not SOURCES[name].selection else None), shipped(data_dir, SHIPPED[name])
    parts = {"train": "train", SOURCES[name].test: "test"} | ({SOURCES[name].selection: "selection"} if SOURCES[name].selection else {})
    for upstream, ours in parts.items():
        got = {i.id: (i.question, i.answer, list(i.options) or None) for i in task.split(ours)}
        assert got == {r["id"]: (r["question"], r["answer"], r["options"]) for r in want if r["split"] == upstream}
        assert len(got) == len(task.split(ours))


@pytest.mark.parametrize("name, upstream", [("openbookqa", "openbookqa"), ("quarel", "quarel"), ("sst2_sentences", "sst2")])
def test_official_test_part(name, upstream, data_dir):
    task, want = load_source(f"{name}:official_test"), shipped(data_dir, upstream)
    for ours, theirs in (("train", "train"), ("selection", "validation"), ("test", "test")):
        assert [i.id for i in task.split(ours)] == [r["id"] for r in want if r["split"] == theirs]


@pytest.mark.parametrize("name", RANDOM)
def test_ho_default_split_index_for_index(name, data_dir):
    task, want = load_source(name, n_selection=0), split_file(data_dir, f"{name}__default")
    assert numbers(task.split("train")) == want["train"] and numbers(task.split("test")) == want["test"]


def test_ho_default_split_of_the_given_ones(data_dir):
    for name in ("gsm8k", "commonsense_qa"):
        task, want = load_source(name, n_selection=0), split_file(data_dir, f"{name}__default")
        assert numbers(task.split("train")) == want["train"] and numbers(task.split("test")) == want["test"]
    want = split_file(data_dir, "aqua__default")
    assert few_samples(range(97467), SOURCES["aqua"].train_at_most, 0) == want["train"]
    assert numbers(load_source("aqua_heldout").split("test")) == want["test"]


@pytest.mark.parametrize("name", ["multiarith", "date_understanding"])
def test_ho_template_split(name, data_dir):
    want = split_file(data_dir, f"{name}__template")
    for variant in ("template", "ho:template") if name == "date_understanding" else ("template",):
        task = load_source(f"{name}:{variant}", n_selection=0)
        assert numbers(task.split("train")) == want["train"] and numbers(task.split("test")) == want["test"]
        assert leakage(task.split("train"), task.split("test"))["template"] == 0


def test_scenario_split(data_dir):
    task = load_source("tracking_shuffled_objects:scenario", n_selection=0)
    assert len(task.split("train")) == 525 and len(task.split("test")) == 225
    assert leakage(task.split("train"), task.split("test"))["scenario"] == 0


def test_few_sample_subsets(data_dir):
    task = load_source("last_letter_concatenation", n_train=8)
    assert numbers(task.split("train")) == [7, 66, 76, 166, 271, 274, 383, 418]  # Ho et al.'s eight
    subsets = [set(numbers(load_source("last_letter_concatenation", n_train=n).split("train"))) for n in (8, 32, 128)]
    assert subsets[0] < subsets[1] < subsets[2]
    for n in (None, 8, 128):
        task = load_source("svamp", n_train=n, seed=3)
        ids = [{i.id for i in task.split(s)} for s in task.splits]
        assert not (ids[0] & ids[1] or ids[0] & ids[2] or ids[1] & ids[2]) and len(ids[1]) == 70
    with pytest.raises(ValueError, match="ask for fewer"): load_source("svamp", n_train=700, n_selection=1)


def test_leakage_of_the_default_split(data_dir):
    def leak(name): return leakage(*(load_source(name, n_selection=0).split(s) for s in ("train", "test")))
    assert (m := leak("multiarith"))["template"] == m["n"] == 180 and m["question"] == 5
    assert (d := leak("date_understanding"))["template"] == d["scenario"] == d["n"] == 111
    assert (t := leak("tracking_shuffled_objects"))["scenario"] == 198 and t["n"] == 225
    assert leak("strategy_qa")["question"] == 1
    assert {leak(n)["question"] for n in RANDOM} == {0, 1, 5}


@pytest.mark.parametrize("variant, corpus", [("mario", "strategyqa_train__gpt3_mario"), ("kard", "strategy_qa_train__gpt35_kard10")])
def test_variants_of_strategyqa_hold_what_their_corpus_answers(variant, corpus, data_dir):
    told, whole, task = set(recorded(corpus).instance), load_source("strategy_qa", n_selection=0), load_source(f"strategy_qa:{variant}")
    assert {f"strategy_qa-{k}" for k, known in enumerate(sources.answered(variant)) if known} == told
    mine = {i.id for s in ("train", "selection") for i in task.split(s)}
    assert mine == told & {i.id for i in whole.split("train")} and len(mine) > 1000
    assert [i.id for i in task.split("test")] == [i.id for i in whole.split("test")] and variant in sources.split_rule(task.name)


def test_ho_rendering(data_dir):
    for name in ("date_understanding", "multiarith"):
        want = json.loads((data_dir / f"raw/reasoning-teacher/data/dataset/{name}.json").read_text())["data"]
        task = load_source(name + (":ho" if name == "date_understanding" else ""), n_selection=0)
        got = {n: (i.question, i.answer) for s in ("train", "test") for n, i in zip(numbers(task.split(s)), task.split(s))}
        assert got == {r["sample_index"]: (r["question"], r["answer"]) for r in want}
    for name in ("addsub", "single_eq", "coin_flip", "last_letter_concatenation", "strategy_qa"):
        task, table = load_source(name, n_selection=0), recorded(f"{name}__ho_zero_shot_cot")
        asked = {i.id: i.question for s in task.splits for i in task.split(s)}
        assert len(table) and all(asked[i] == q for i, q in zip(table.instance, table.question))
    track = load_source("tracking_shuffled_objects:ho", n_train=1).split("train")[0]
    a, b, c = track.options
    assert track.question.endswith(f"\nWhich choice is true? Answer choices: (A) {a}, (B) {b}, (C) {c}.")


def test_scotd_rendering(data_dir):
    q = load_source("commonsense_qa:scotd", n_test=1).split("test")[0]
    assert q.question.endswith("\nAnswer Choices:\n" + "\n".join(f"({k}) {o}" for k, o in zip("abcde", q.options)))
    q = load_source("openbookqa:scotd", n_test=1).split("test")[0]
    assert q.question.endswith(" " + " ".join(f"({k}) {o}" for k, o in zip("abcd", q.options)))


def test_variants_and_names():
    with pytest.raises(KeyError, match="no variant 'nope'; it has template"): load_source("multiarith:nope")
    with pytest.raises(KeyError, match="no source"): load_source("multiarithm")


def test_every_pin_has_a_checksum_but_one():
    assert [p.local for p in PINS.values() if not p.sha256] == ["AQuA/train.json"]
    assert {n for n, s in SOURCES.items() if not s.verified} == {"aqua", "anli", "sst2", "imdb"}
    assert len(PINS) == 36
    assert all(len(p.commit) == 40 and int(p.commit, 16) for p in PINS.values())


def test_a_single_changed_byte_is_refused(data_dir, tmp_path, monkeypatch):
    (tmp_path / "raw/MultiArith").mkdir(parents=True)
    data = (data_dir / "raw/MultiArith/MultiArith.json").read_bytes()
    (tmp_path / "raw/MultiArith/MultiArith.json").write_bytes(data.replace(b"Debby", b"Debbi", 1))
    monkeypatch.setenv("COTSTUDY_DATA", str(tmp_path))
    with pytest.raises(ValueError, match="expected dc9db1b6"): load_source("multiarith")


def test_floats_keep_their_digits(data_dir):
    golds = {i.answer for i in load_source("single_eq", n_selection=0).split("test")}
    assert "0.6666666666666666" in golds


# --- the download path, against a server on this machine ---

GOOD = b'{"question": "Ann has 3 pens?", "answer": "3"}\n'


class Mirror(BaseHTTPRequestHandler):
    asked = []

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        self.asked.append(name)
        body = {"good.jsonl": GOOD, "cut.jsonl": GOOD[:10], "wrong.jsonl": GOOD[::-1],
                "page.jsonl": b"<!DOCTYPE html><html>login</html>"}.get(name)
        self.send_response(200 if body else 404)
        if body: self.send_header("Content-Length", str(len(GOOD) if name == "cut.jsonl" else len(body)))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *args): pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("COTSTUDY_DATA", raising=False)
    monkeypatch.setenv("COTSTUDY_CACHE", str(tmp_path / "cache"))
    Mirror.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


SHA = hashlib.sha256(GOOD).hexdigest()


def pin(name, sha=SHA): return Pinned(f"toy/{name}", "someone/toys", "0" * 40, name, sha)


def left_over(tmp_path): return [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_download_once_then_cache(mirror):
    path = fetch(pin("good.jsonl"), mirror)
    assert path.read_bytes() == GOOD and fetch(pin("good.jsonl"), mirror) == path and Mirror.asked == ["good.jsonl"]
    assert read_rows(path, "json") == [json.loads(GOOD)]


@pytest.mark.parametrize("name, error, says", [
    ("cut.jsonl", FileNotFoundError, "cut after 10 bytes"), ("gone.jsonl", FileNotFoundError, "404"),
    ("wrong.jsonl", ValueError, "expected [0-9a-f]{64}"), ("page.jsonl", ValueError, "HTML page")])
def test_bad_downloads_leave_nothing(mirror, tmp_path, name, error, says):
    with pytest.raises(error, match=says) as e: fetch(pin(name), mirror)
    assert name in str(e.value) and "\n" not in str(e.value) and left_over(tmp_path) == []


def test_a_page_is_refused_even_without_a_checksum(mirror, tmp_path):
    with pytest.raises(ValueError, match="HTML page"): fetch(pin("page.jsonl", ""), mirror)
    assert left_over(tmp_path) == [] and fetch(pin("good.jsonl", ""), mirror).read_bytes() == GOOD


class Upstream(BaseHTTPRequestHandler):
    "The collected files at the addresses of the pins, whole or spoilt."
    folder, fault = None, ""

    def do_GET(self):
        local = next(p.local for p in PINS.values() if p.url("") == self.path)
        path = self.folder / "raw" / local
        data = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(path.name + ".gz").read_bytes())
        body = {"changed": data[:-2] + b" " + data[-1:], "page": b"<html>" + data, "cut": data[: len(data) // 2]}.get(self.fault, data)
        self.send_response(404 if self.fault == "gone" else 200)
        self.send_header("Content-Length", str(len(data) if self.fault == "cut" else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args): pass


def same(a, b): return all(list(a.split(s)) == list(b.split(s)) for s in a.splits)


@pytest.mark.parametrize("name", ["multiarith:template", "svamp", "date_understanding:ho", "coin_flip", "aqua_heldout", "openbookqa:scotd",
                                  "quarel"])
def test_downloaded_tasks_equal_the_local_ones(name, data_dir, tmp_path, monkeypatch):
    local = load_source(name)
    monkeypatch.setattr(Upstream, "folder", data_dir)
    server = HTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.delenv("COTSTUDY_DATA")
    monkeypatch.setenv("COTSTUDY_CACHE", str(tmp_path / "cache"))
    try:
        for fault, says in (("cut", "cut after"), ("changed", "expected [0-9a-f]{64}"), ("page", "HTML page"), ("gone", "404")):
            monkeypatch.setattr(Upstream, "fault", fault)
            with pytest.raises((FileNotFoundError, ValueError), match=says): load_source(name, base_url=base)
            assert left_over(tmp_path) == []
        monkeypatch.setattr(Upstream, "fault", "")
        assert same(load_source(name, base_url=base), local)
    finally:
        server.shutdown()
        server.server_close()
    assert same(load_source(name, base_url="http://127.0.0.1:1"), local)  # from the cache


def test_a_missing_training_part_names_what_is_at_hand(data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_CACHE", str(tmp_path))
    if (data_dir / "raw/AQuA/train.json").exists(): pytest.skip("the folder has it")
    with pytest.raises(FileNotFoundError, match="AQuA/train.json; at hand are aqua_heldout, aqua_flan$"):
        load_source("aqua", base_url="http://127.0.0.1:1")


def test_both_renderings_have_a_name(data_dir):
    for name in ("date_understanding", "tracking_shuffled_objects", "aqua_heldout", "commonsense_qa"):
        plain, kojima, ho = (load_source(name + v).split("test") for v in ("", ":kojima", ":ho"))
        assert plain == kojima and [i.id for i in ho] == [i.id for i in plain]
        assert not {i.question for i in ho} & {i.question for i in plain}


def test_a_damaged_cache_is_not_read(mirror):
    fetch(pin("good.jsonl"), mirror).write_bytes(b"damaged")
    with pytest.raises(ValueError, match="remove it"): fetch(pin("good.jsonl"), mirror)


def test_neither_folder_nor_network(tmp_path, monkeypatch):
    monkeypatch.delenv("COTSTUDY_DATA", raising=False)
    monkeypatch.setenv("COTSTUDY_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError) as e: load_source("multiarith", base_url="http://127.0.0.1:1")
    said = str(e.value)
    assert "http://127.0.0.1:1/kojima-takeshi188/zero_shot_cot/5ef330fc" in said and "COTSTUDY_DATA" in said and "\n" not in said


def test_a_folder_that_is_not_there(monkeypatch):
    monkeypatch.setenv("COTSTUDY_DATA", "/nowhere/at/all")
    with pytest.raises(FileNotFoundError, match="COTSTUDY_DATA is '/nowhere/at/all'"): load_source("multiarith")


def test_hub_datasets_have_a_local_door_and_say_unverified(tmp_path, monkeypatch):
    rows = {"train": [dict(sentence="a fine pen ", label=1, idx=k) for k in range(20)],
            "validation": [dict(sentence="a dull pen", label=0, idx=0)]}
    for split, r in rows.items():
        path = tmp_path / f"raw/hub/nyu-mll/glue/sst2/{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(x) + "\n" for x in r))
    monkeypatch.setenv("COTSTUDY_DATA", str(tmp_path))
    task = load_source("sst2")
    assert len(task.split("train")) == 18 and task.split("train")[0].question.endswith('\n"a fine pen"')
    assert task.split("test")[0].answer == "negative"
    assert task.source.startswith("unverified: https://huggingface.co/datasets/nyu-mll/glue")


def test_hub_failure_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "HUB", "http://127.0.0.1:1")
    monkeypatch.setenv("COTSTUDY_DATA", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(FileNotFoundError, match="stanfordnlp/imdb.*COTSTUDY_DATA") as e: load_source("imdb")
    assert "\n" not in str(e.value)


# --- recorded completions ---

def test_recorded_files_join_their_tasks(data_dir):
    known = {}
    files = sorted((data_dir / "recorded").glob("*.jsonl.gz"))
    assert files, "recorded/ holds no completions"
    for path in files:
        table = recorded(path.name.removesuffix(".jsonl.gz"))
        assert list(table)[:7] == ["instance", "draw_index", "rationale", "answer_text", "prediction", "gold", "finish_reason"]
        assert table.attrs["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert not table.duplicated(["instance", "draw_index"]).any()
        name = table.instance[0].rsplit("-", 1)[0].split("-")[0]
        name = {"aqua": "aqua_heldout"}.get(name, name)
        for variant in ("", ":official_test") if name in ("quarel", "openbookqa") else ("",):
            if (name, variant) not in known:
                known[name, variant] = {i.id for part in load_source(name + variant).splits.values() for i in part}
        ids = set().union(*(v for (n, _), v in known.items() if n == name))
        assert set(table.instance) <= ids, path.name
    assert len(recorded("multiarith__ho_zero_shot_cot").query("instance == 'multiarith-0'")) >= 1
    assert recorded("quarel_train__gpt3_mario").groupby("instance").size().eq(5).all()


def test_recorded_by_path_and_its_errors(tmp_path, monkeypatch):
    monkeypatch.delenv("COTSTUDY_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="COTSTUDY_DATA"): recorded("multiarith__zero_shot")
    with pytest.raises(FileNotFoundError, match="no file"): recorded(tmp_path / "x.jsonl")
    (bad := tmp_path / "bad.jsonl").write_text('{"id": "a", "draw_index": 0}\n{"id": "a", "draw_index": 0}\n')
    with pytest.raises(ValueError, match="twice"): recorded(bad)
    bad.write_text('{"x": 1}\n')
    with pytest.raises(ValueError, match="expected `id`"): recorded(bad)
    bad.write_text('{"id": 1\n')
    with pytest.raises(ValueError, match="line 1"): recorded(bad)


def test_the_split_rule_does_not_depend_on_the_seed(data_dir):
    tests = [numbers(load_source("multiarith", seed=s).split("test")) for s in (0, 1)]
    assert tests[0] == tests[1] == ho_split(600)[1]
    first, second = (load_source("multiarith", n_train=8, seed=seed).split("train") for seed in (0, 1))
    assert numbers(first) != numbers(second)


DATES = ("Q: Today is 1/2/2001. Which choice is true? Answer choices: (A) 1/2, (B) 3/4.\nA: It is 01/02.2001. The answer is A.\n"
         "Q: Is it \"late\"? Answer choices: (A) a, (B) b.\nA: It is. The answer is here. The answer is B.")
MOODS = """cfg = {
  'INPUT_PREFIX': 'Q: What is it?\\n',
  'FEW_SHOT_COT_PROMPT': ('"good"', '"good" is good.', 'positive',
                          '"bad"', 'Bad.', 'negative'),
}
import nowhere
nowhere.run()
"""
INVENTED = {
    "reasoning-teacher/data/few_shot_cot_prompts.json": json.dumps(dict(date_understanding=dict(prompt=DATES, sample_indices=[1, 2]))),
    "scotd/configs_data/complete/sst2.py": MOODS,
    "scotd/configs_data/complete/quarel.py": "cfg = {'INPUT_PREFIX': 'Q: ', 'FEW_SHOT_COT_PROMPT': ('Who? (A) x (B) y', 'Y is.', '(B)')}",
}


def test_published_exemplars_are_read_and_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.setenv("COTSTUDY_DATA", str(tmp_path))
    for name, text in INVENTED.items():
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raw" / name).write_text(text)
    dates = published_exemplars("date_understanding:ho", "ho")
    assert [(s.rationale, s.answer) for s in dates] == [("It is 01/02.2001.", "A"), ("It is. The answer is here.", "B")]
    assert published_exemplars("sst2_sentences", "scotd") == (("What is it?\n\"good\"", "\"good\" is good.", "positive"),
                                                              ("What is it?\n\"bad\"", "Bad.", "negative"))
    assert published_exemplars("quarel", "scotd")[0].answer == "B"
    for name, whose, says in (("coin_flip", "ho", "no entry 'coin_flip'"), ("tracking_shuffled_objects", "ho", "has no exemplars for"),
                              ("quarel", "wei", "no published exemplars of 'wei'")):
        with pytest.raises(KeyError, match=says): published_exemplars(name, whose)


def test_exemplars_have_pinned_commits_and_sources():
    pins = {p for files in EXEMPLARS.values() for p in files.values()}
    assert len(pins) == 7 and all(len(p.commit) == 40 and int(p.commit, 16) and p.sha256 == "" for p in pins)
    assert {name for files in EXEMPLARS.values() for name in files} <= {s.rule_key or n for n, s in SOURCES.items()}


SHOTS = [(whose, name) for whose, files in EXEMPLARS.items() for name in files]


@pytest.mark.parametrize("whose, name", SHOTS)
def test_exemplars_of_the_papers(whose, name, data_dir):
    if not at_hand(EXEMPLARS[whose][name]): pytest.skip(f"no raw/{EXEMPLARS[whose][name].local} in COTSTUDY_DATA or the cache")
    known = dict(ho=dict(aqua=4, date_understanding=6, commonsense_qa=7, strategy_qa=6),
                 scotd=dict(commonsense_qa=7, openbookqa=4, quarel=5, anli=6, sst2=6, imdb=3))  # the papers' own counts
    shown = published_exemplars(name, whose)
    assert len(shown) == known[whose].get(name, 8) and all(all(s) for s in shown) and not any("The answer is" in s.rationale for s in shown)
    task = load(name if name != "sst2" else "sst2_sentences", exemplars=whose) if name not in ("aqua", "anli", "imdb") else None
    if task and task.labels: assert {s.answer for s in shown} <= set(task.labels)
    gone = dict(strategy_qa=(0, 3, 7), date_understanding=(53, 143)).get(name, ()) if whose == "ho" else ()  # what Ho et al. left out
    if gone: assert {i.id for i in load(name).split("test")} - {i.id for i in task.split("test")} == {f"{name}-{k}" for k in gone}
