"""Procedural tasks: gold, splits and the step checker, on fresh instances."""
from random import Random
from time import process_time
import re

import pytest
from hypothesis import assume, given, settings, strategies as st

from cotstudy.checker import stated_answer
from cotstudy.instances import KINDS, Instance
from cotstudy.procedural import (CREATURES, FAMILIES, KINDS_OF_THING, LINKS, NAMES, PLACES, TRAITS, WORDS, WORLD, asked_date, bucket,
                                 held_at_start, move, own_way_arith, pairs_of, procedural_task, renamed, say_date, say_fact, situation,
                                 who_what)
from cotstudy.reviews import BAD, GOOD, tone

names = pytest.mark.parametrize("name", sorted(FAMILIES))
seeds = st.integers(0, 10**9)

def fresh(name: str, seed: int) -> tuple[Instance, str]:
    "An instance and a rationale by its first derivation."
    f, rng = FAMILIES[name], Random(seed)
    i = f.draw(rng, **f.difficulty)
    return i, f.write(i, rng)

def in_each_way(name: str, seed: int) -> tuple[Instance, list[tuple[Instance, str]]]:
    "An instance, its derivations and a rationale by each."
    f, rng = FAMILIES[name], Random(seed)
    i = f.draw(rng, **f.difficulty)
    return i, [(way, f.write(way, rng)) for way in f.derivations(i)]

@names
@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_own_rationales_are_sound(name, seed):
    i, told = in_each_way(name, seed)
    for text in (t for _, r in told for t in (r, f"{r} So the answer is: {i.answer}", f"{r} So the answer is: ({i.answer}).")):
        c = FAMILIES[name].check(i, text)
        assert c.sound and c.answer_ok and not c.lucky, (text, c)

@names
@settings(max_examples=60, deadline=None)
@given(seed=seeds)
def test_every_slip_is_found_and_leads_to_its_answer(name, seed):
    f, rng = FAMILIES[name], Random(seed)
    i = f.draw(rng, **f.difficulty)
    slip = f.slipped(i, rng)
    text = f.write(slip, rng)
    c = f.check(i, f"{text} So the answer is: {slip.answer}")
    assert slip.question == i.question and not c.sound and c.n_wrong + len(c.missing), (text, c)
    assert c.answer_ok == (slip.answer == i.answer) and c.lucky == c.answer_ok

@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"facts"}))
def test_families_know_more_than_one_derivation(name):
    "Different texts, not different words for one: no claim of the one way is missing in the other, in its order, by chance alone."
    f, rng = FAMILIES[name], Random(8)
    ways = [f.derivations(f.draw(rng, **f.difficulty)) for _ in range(60)]
    assert sum(len(w) > 1 for w in ways) > 20
    assert all(len({w.trace for w in ws}) == len(ws) or name in ("sentiment", "sst", "strategy") for ws in ways)
    assert {w.question for w in ways[0]} == {ways[0][0].question}

@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"facts", "sentiment", "sst"}))
@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_a_missing_step_is_found_in_every_derivation(name, seed):
    i, told = in_each_way(name, seed)
    for way, text in told[1:]:
        s = sentences(text)
        k = next(k for k, x in enumerate(s) if essential(name, way, x))
        rest = " ".join(s[:k] + s[k + 1:])
        true, _ = FAMILIES[name].steps(way)
        gone = [c for c in FAMILIES[name].claims(way, s[k]) if c in true and c not in FAMILIES[name].claims(way, rest)]
        c = FAMILIES[name].check(i, f"{rest} So the answer is: {i.answer}")
        another = any(set(FAMILIES[name].steps(w)[0]) <= set(FAMILIES[name].claims(w, rest)) for w in FAMILIES[name].derivations(i))
        if gone and not another: assert not c.sound and c.lucky, (text, rest, c)  # 2 + 7 = 9. 9 + 2 = 11: what is left is 2 + 9

@names
@settings(max_examples=30, deadline=None)
@given(seed=seeds)
def test_wrong_answer_is_found(name, seed):
    i, r = fresh(name, seed)
    c = FAMILIES[name].check(i, f"{r} So the answer is: {i.answer}x")
    assert not c.answer_ok and c.sound and c.answer == i.answer + "x"

def sentences(r: str) -> list[str]: return re.split(r"(?<=\.) ", r)

def essential(name: str, i: Instance, text: str) -> bool:
    "Whether some sentence carries a required step, as the checker reads it alone."
    f = FAMILIES[name]
    true, free = f.steps(i)
    return any(c in true for c in f.claims(i, text))

@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"shuffle", "entail"}))
@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_missing_step_is_found(name, seed):
    i, r = fresh(name, seed)
    s = sentences(r)
    f = FAMILIES[name]
    true, _ = f.steps(i)
    k = next(k for k, x in enumerate(s) if essential(name, i, x))
    rest = " ".join(s[:k] + s[k + 1:])
    gone = [c for c in f.claims(i, s[k]) if c in true and c not in f.claims(i, rest)]
    c = f.check(i, f"{rest} So the answer is: {i.answer}")
    if gone: assert c.missing and not c.sound and c.lucky

@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_missing_swap_is_found(seed):
    f, rng = FAMILIES["shuffle"], Random(seed)
    i = f.draw(rng, swaps=(3, 4))
    s = sentences(f.write(i, rng))
    states = [h for _, h in i.trace[1:]]
    assume(len(set(states)) == len(states))  # a repeated state hides nothing new
    assert f.check(i, " ".join(s[:1] + s[2:])).missing

@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_two_missing_swaps_are_found_even_where_the_second_undoes_the_first(seed):
    f, rng = FAMILIES["shuffle"], Random(seed)
    i = f.draw(rng, swaps=(4, 5))
    s = sentences(f.write(i, rng))
    held = [f.steps(i)[0][k][1][1] for k in range(len(i.trace) - 1)]
    assume(any(a == b for a, b in zip(held, held[2:])))
    k = next(k for k in range(len(held) - 2) if held[k] == held[k + 2])
    assert f.check(i, " ".join(s[:k + 1] + s[k + 3:])).missing

@pytest.mark.parametrize("name", ["arith", "dates", "coin"])
@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_wrong_order_is_found(name, seed):
    i, r = fresh(name, seed)
    f = FAMILIES[name]
    true, _ = f.steps(i)
    s = sentences(r)
    anywhere = [k for k, x in enumerate(s) if name == "dates" and " days" in x]  # the length of a month may be said earlier
    carry = [k for k, x in enumerate(s) if essential(name, i, x) and k not in anywhere]
    assume(len(carry) >= 2)
    a, b = carry[0], carry[1]
    assume(f.claims(i, s[a]) != f.claims(i, s[b]))
    s[a], s[b] = s[b], s[a]
    assume(name != "arith" or own_way_arith(i, f.claims(i, " ".join(s))) is None)  # by chance the numbers allow this order, too
    c = f.check(i, " ".join(s))
    assert not c.order_ok and not c.sound

@pytest.mark.parametrize("name", ["arith", "dates"])
@settings(max_examples=60, deadline=None)
@given(seed=seeds, by=st.integers(1, 5))
def test_wrong_value_is_found(name, seed, by):
    i, r = fresh(name, seed)
    m = re.search(r"((?:=|is|makes|leaves) )(\d+)(?=[ .])", r)
    assume(m is not None)
    bad = r[:m.start(2)] + str(int(m[2]) + by) + r[m.end(2):]
    c = FAMILIES[name].check(i, f"{bad} So the answer is: {i.answer}")
    assert c.n_wrong >= 1 and c.lucky

@pytest.mark.parametrize("name,a,b", [("coin", "heads", "tails"), ("sentiment", "positive", "negative"), ("sst", "positive", "negative"),
                                      ("relations", "less", "more")])
@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_flipped_word_is_found(name, a, b, seed):
    i, r = fresh(name, seed)
    m = re.search(rf"\b({a}|{b})\b", r)
    bad = r[:m.start()] + (b if m[0] == a else a) + r[m.end():]
    c = FAMILIES[name].check(i, f"{bad} So the answer is: {i.answer}")
    assert c.n_wrong >= 1 and c.lucky, bad

@names
@settings(max_examples=60, deadline=None)
@given(seed=seeds, text=st.text())
def test_checker_never_raises(name, seed, text):
    i, r = fresh(name, seed)
    c = FAMILIES[name].check(i, text)
    assert c.n_wrong <= c.n_steps and not (c.sound and not FAMILIES[name].claims(i, text))
    FAMILIES[name].check(i, r[: len(text)] + text + r[len(text):])

@names
def test_tasks_are_disjoint_and_repeatable(name):
    a, b, other = (procedural_task(name, 60, 20, 60, s) for s in (3, 3, 4))
    assert a.kind in KINDS and {k: len(v) for k, v in a.splits.items()} == dict(train=60, selection=20, test=60)
    assert {k: list(v) for k, v in a.splits.items()} == {k: list(v) for k, v in b.splits.items()}
    assert a.split("test") != other.split("test")
    for x, y in (("train", "test"), ("train", "selection"), ("selection", "test")):
        assert not {i.scenario for i in a.split(x)} & {i.scenario for i in other.split(y)}, "splits must hold across seeds too"
    ids = [i.id for s in a.splits.values() for i in s]
    assert len(set(ids)) == len(ids)
    for i in a.split("test"):
        assert bucket(i.scenario) in PLACES["test"]
        assert not a.labels or i.answer in a.labels
        if i.options: assert i.answer in i.options and len(set(i.options)) == len(i.options) and all(o in i.question for o in i.options)

def test_test_split_does_not_depend_on_train_size():
    assert procedural_task("coin", 5, 5, 30).split("test") == procedural_task("coin", 80, 0, 30).split("test")

@pytest.mark.parametrize("name", ["coin", "strategy", "sentiment", "entail", "sst"])
def test_labels_are_balanced(name):
    t = procedural_task(name, 0, 0, 300)
    assert len(t.labels) >= 2
    for label in t.labels: assert abs(sum(i.answer == label for i in t.split("test")) / 300 - t.chance) < 0.05

@settings(max_examples=100, deadline=None)
@given(seed=seeds)
def test_gold_by_independent_reading(seed):
    "Arithmetic and coin gold, recomputed from the words of the question alone."
    i, _ = fresh("arith", seed)
    x = None
    for s in i.question.split(". "):
        n = [int(v) for v in re.findall(r"\d+", s)]
        if not n: continue
        if x is None: x = n[0] * n[1] if "bags" in s else n[0]
        else: x += -n[0] if re.search("loses|gives|sells", s) else n[0]
    assert str(x) == i.answer
    i, _ = fresh("coin", seed)
    assert "The coin is heads up." in i.question and "still heads up?" in i.question
    assert i.answer == ("no" if len(re.findall(r" flips\.", i.question)) % 2 else "yes")

@given(day=st.integers(1, 28), month=st.integers(0, 11), days=st.integers(-20, 20))
def test_dates_agree_with_the_calendar(day, month, days):
    from datetime import date, timedelta
    d = date(2023, month + 1, day) + timedelta(days)
    assert move((day, month), days) == (d.day, d.month - 1)

def test_contrast_flips_one_word_and_the_label():
    f = FAMILIES["sentiment"]
    for seed in range(50):
        a = f.draw(Random(seed), **f.difficulty)
        b = f.contrast(a, Random(seed))
        assert a.answer != b.answer and sum(x != y for x, y in zip(a.question.split(), b.question.split())) == 1
        assert f.check(b, f.rationale(b, Random(0))).sound

def test_what_was_asked_is_checked_too():
    f = FAMILIES["coin"]
    for seed in range(20):
        i = f.draw(Random(seed))
        text = f.write(i, Random(seed))
        m = re.search(r"(asked is|question was) (heads|tails)", text)
        bad = text[:m.start(2)] + ("tails" if m[2] == "heads" else "heads") + text[m.end(2):]
        assert f.check(i, text).sound and f.check(i, bad).n_wrong == 1
        assert f.check(i, text.replace(m[0], "so be it")).sound, "it may be left out"

def test_world_is_closed():
    assert {r for r, _ in WORLD} > set(LINKS) and len(WORLD) > 24
    for (r, c), v in WORLD.items(): assert r not in LINKS or (v != c and ("home", v) in WORLD)

def test_errors_say_what_exists():
    with pytest.raises(KeyError, match="arith"): procedural_task("chess")
    with pytest.raises(ValueError, match="flips"): procedural_task("coin", steps=3)
    with pytest.raises(ValueError, match="fewer"): procedural_task("sst", 100000, 0, 0)

def test_stated_answer():
    assert stated_answer("x. So the answer is: (B).") == "B"
    assert stated_answer("The answer is 5\nQ: next") == "5"
    assert stated_answer("none") is None

def test_someone_elses_things_are_found():
    f = FAMILIES["arith"]
    i = Instance("", "Bob has 7 eggs. Bob finds 4 eggs. How many eggs does Bob have now?", "11", trace=((7, "+", 4, 11),))
    assert f.check(i, "Bob has 7 + 4 = 11 eggs.").sound and f.check(i, "Eve has 7 + 4 = 11 eggs.").sound  # Eve is no word of this world
    assert f.check(i, "Mia has 7 + 4 = 11 eggs. So the answer is: 11").lucky

@pytest.mark.parametrize("style, before, wrong",
                         [(0, "{a} {x} and {b} {y} swap:", "{a} {y} and {b} {x} swap:"),
                          (1, "{a} has the {x} and {b} has the {y}, so now", "{a} has the {y} and {b} has the {y}, so now"),
                          (2, "{a}: {x}, {b}: {y} ->", "{a}: {x}, {b}: {x} ->")])
def test_a_premise_that_contradicts_the_rationale_is_a_wrong_step(style, before, wrong):
    f, rng, hits = FAMILIES["shuffle"], Random(5), 0
    for _ in range(60):
        i = f.draw(rng)
        text = f.write(i, rng)
        held = dict(re.findall(r"(\w+) has the (\w+)", i.question.split(".")[0]))
        (a, b), _ = i.trace[1]
        x, y = held[a], held[b]
        said = before.format(a=a, b=b, x=x, y=y)
        if not text.startswith(said): continue
        hits += 1
        good, bad = (f.check(i, t) for t in (text, text.replace(said, wrong.format(a=a, b=b, x=x, y=y), 1)))
        assert good.sound and not bad.sound and bad.n_wrong == good.n_wrong + (2 if style == 0 else 1) and bad.answer_ok
    assert hits > 5

def swapped_words(text: str, rng: Random, pattern: str, make) -> str | None:
    "The text with one match of a pattern replaced; None where there is none."
    found = list(re.finditer(pattern, text))
    if not found: return None
    m = rng.choice(found)
    return text[:m.start()] + make(m) + text[m.end():]

def held_first(i: Instance) -> dict[str, str]: return dict(re.findall(r"(\w+) has the (\w+)", i.question.split(".")[0]))

def other(rng: Random, words, *not_these: str) -> str: return rng.choice([w for w in words if w not in not_these])

def opposite_side(m: re.Match) -> str:
    pairs = (("heads", "tails"), ("does not flip", "flips"), ("positive", "negative"), ("more", "less"))
    return next(b if m[0] == a else a for a, b in pairs if m[0] in (a, b))

def false_premise(name: str, i: Instance, text: str, rng: Random) -> str:
    "The rationale with one premise against the question; every result stays as it was."
    if name == "arith":
        a, op, b, c = i.trace[0]
        n, thing = who_what(i)
        started = f"{n} has {(c if op == '*' else a) + 3} {thing}. {text}"
        operand = swapped_words(text, rng, r"\b\d+(?= (?:[-+*]|plus|minus|times|and|less) )", lambda m: str(int(m[0]) + 1))
        return rng.choice((started, operand))
    if name == "shuffle":
        (a, b), held = i.trace[1][0], held_first(i)
        return f"{a} has the {held[b]}. {text}"
    if name == "dates":
        anchor, day, month = re.match(r"(\w+ \w+) (\d+) (\w+)", i.question).groups()
        return rng.choice((f"{anchor} {int(day) % 28 + 1} {month}. ", "It is 13 days later. ", "February has 31 days. ")) + text
    if name == "letters":
        words = [w for w, _ in i.trace]
        return swapped_words(text, rng, rf"\b(?:{'|'.join(words)})\b", lambda m: other(rng, WORDS, *words))
    if name == "coin":
        first = re.search("heads|tails", i.question)
        flips = swapped_words(text, rng, r"does not flip|flips", opposite_side)
        return rng.choice((f"The coin is {opposite_side(first)} up. {text}", flips))
    if name == "relations":
        high, word, low = i.trace[0][1]
        met = f"{i.question.split()[0]} compares {high} with {other(rng, ('mud', 'ice', 'cave'), high, low)}. {text}"
        return rng.choice((f"{low} is {word} than {high}. {text}", met))
    if name in ("facts", "strategy"):
        (r, w), v = rng.choice([s for s in i.trace if s[0] != "verdict"])
        return say_fact(rng.randrange(2), r, w, other(rng, CREATURES if r in LINKS else TRAITS[r], v)) + " " + text
    if name == "sentiment":
        (p, a, negated), _ = rng.choice(i.trace)
        judged = text.replace(a, other(rng, GOOD if a in GOOD else BAD, a), 1)
        return rng.choice((f"The {p} is {'' if negated else 'not '}{a}. {text}", judged))
    if name == "entail":
        who, chain, *_ = i.trace[0]
        kind = next(k for k in KINDS_OF_THING if k not in i.question)
        return rng.choice((f"{who} is a {kind}. {text}", f"Every {chain[-1]} is a {kind}. {text}"))
    words = [w.split()[-1] for w, _ in i.trace]
    return re.sub(rf"\b{words[0]}\b", other(rng, GOOD if words[0] in GOOD else BAD, *words), text, count=1)

@names
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_premise_against_the_question_is_found(name, seed):
    i, text = fresh(name, seed)
    c = FAMILIES[name].check(i, f"{false_premise(name, i, text, Random(seed))} So the answer is: {i.answer}")
    assert not c.sound and c.lucky and c.n_wrong and c.n_false

FALSE = dict(  # free sentences about the question's world: {n} a name or thing of the question
    arith=("{n} has 3 dogs.", "{n} likes Paul and Mia.", "1 + 1 = 3.", "{n} never had them.", "It is not true that 2 + 2 = 4.",
           "{n} loses 99."),
    shuffle=("{n} holds nothing.", "{n} is tall.", "The ball is red.", "{n} gives away the pen."),
    dates=("Today is a Monday.", "December has 12 days.", "7 + 7 = 15.", "2 weeks are 10 days.", "March comes after April."),
    letters=("{n} has 99 letters.", "{n} starts with q.", "{n} ends in q.", "{n} does not end in q.", "dragon: z."),
    coin=("The coin is lost.", "{n} flips twice.", "Nobody flips.", "{n} likes tails.", "The coin has 3 sides."),
    relations=("Mud is smoother than ice.", "More friction means more speed.", "{n} is made of glass.", "Cave is hotter than desert."),
    facts=("{n} is big.", "{n} lives in the palace.", "{n} has 9 friends.", "{n} is not blue or red.", "The boss of {n} is {n}."),
    strategy=("{n} is big.", "{n} lives in the palace.", "{n} has 9 friends.", "{n} is not blue or red.", "The boss of {n} is {n}."),
    sentiment=("The {n} is 9 hours long.", "Good is negative.", "The music is dull.", "There are 99 parts."),
    entail=("{n} is old.", "{n} is not a vont.", "No gorp is a blip.", "{n} likes every plim."),
    sst=("{n} is long.", "Great is negative.", "The movie has 9 parts.", "Not {n}: neither good nor bad."))

def a_word(name: str, i: Instance) -> str:
    "A name or thing of the question."
    first = i.trace[0]
    if name == "arith": return who_what(i)[0]
    if name in ("shuffle", "sentiment", "facts", "strategy"): return first[0][0] if name in ("shuffle", "sentiment") else first[0][1]
    if name == "relations": return first[1][0].capitalize()
    if name == "dates": return i.question.split()[3]
    return first[0].split()[-1]

@names
@settings(max_examples=20, deadline=None)
@given(seed=seeds, k=st.integers(0, 9), at=st.integers(0, 9))
def test_a_false_free_sentence_is_found_and_counted(name, seed, k, at):
    i, text = fresh(name, seed)
    s = sentences(text)
    n = a_word(name, i)
    s.insert(at % (len(s) + 1), FALSE[name][k % len(FALSE[name])].format(n=n if isinstance(n, str) else n[0]))
    c = FAMILIES[name].check(i, f"{' '.join(s)} So the answer is: {i.answer}")
    assert not c.sound and c.n_false + c.n_unread >= 1 and c.lucky

@pytest.mark.parametrize("name", ["strategy", "sentiment", "entail"])
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_a_result_before_its_reasons_is_found(name, seed):
    i, text = fresh(name, seed)
    s = [x for x in sentences(text) if not x.startswith("Claim:")]
    assume(name != "entail" or len(s) > 2)
    s.insert(0 if name != "entail" else 1, s.pop())
    c = FAMILIES[name].check(i, " ".join(s))
    assert not c.sound and (not c.order_ok or name == "entail")  # nearer to the rules joined, with one missing

def commuted(text: str) -> str:
    return re.sub(r"\b(\d+) (\+|\*|plus|times) (\d+)", r"\3 \2 \1", re.sub(r"\b(\d+) and (\d+) more", r"\2 and \1 more", text))

def unspaced(text: str) -> str:
    return re.sub(r"(\d) ([-+*]) (\d+) = (\d)", r"\1\2\3=\4", text).replace(": ", ":").replace(" -> ", "->")

def respelled(text: str) -> str:
    signs = ((" * ", " × "), (" times ", " x "), (" - ", " − "), (" + ", " plus "), (" makes ", " = "), (" leaves ", " equals "))
    for a, b in signs: text = text.replace(a, b)
    return re.sub(r": (?=positive|negative|heads|tails)", " = ", text)

def reordered(name: str, text: str, i: Instance, rng: Random) -> str:
    "Parts of a review in another order, branches the other way round, the length of a month first."
    s = sentences(text)
    if name in ("sentiment", "sst"):
        parts = s[:len(i.trace)]
        rng.shuffle(parts)
        return " ".join(parts + s[len(i.trace):])
    if name == "strategy":
        cut = 1 + next(k for k, ((r, _), _) in enumerate(i.trace[:-1]) if r not in LINKS)
        return " ".join(s[cut:-1] + s[:cut] + s[-1:])
    return " ".join(sorted(s, key=lambda x: " days" not in x)) if name == "dates" else text

def in_other_words(name: str, i: Instance, text: str, rng: Random) -> dict[str, str]:
    "The same rationale in other spellings and forms."
    first, parts = re.split(r"(?<=[.]) (?=[A-Z])", i.question)[0], sentences(text)
    return dict(
        commuted=commuted(text) if name in ("arith", "dates") else text, unspaced=unspaced(text), respelled=respelled(text),
        reordered=reordered(name, text, i, rng), premises=f"{first} {text}", question=f"{i.question} {text}",
        lower=text.lower(), upper=text.upper(),
        no_stop=text.rstrip("."), lines="\n".join(p.rstrip(".") for p in parts), bullets="\n".join(f"- {p}" for p in parts),
        numbered="\n".join(f"{k}. {p}" for k, p in enumerate(parts, 1)), steps="\n".join(f"Step {k}: {p}" for k, p in enumerate(parts, 1)),
        linked=" ".join(f"{rng.choice(('Then', 'Next,', 'Now', 'Therefore,'))} {p}" for p in parts), bold=f"**{text}**", quoted=f'"{text}"',
        prose=f"Let us think step by step. {text} That is all.")

@names
@settings(max_examples=20, deadline=None)
@given(seed=seeds)
def test_valid_variants_are_sound(name, seed):
    i, told = in_each_way(name, seed)
    for how, said in (h for way, text in told for h in in_other_words(name, way, text, Random(seed)).items()):
        c = FAMILIES[name].check(i, f"{said}\nSo the answer is: {i.answer}")
        assert c.sound and c.answer_ok, (how, said, c)

@pytest.mark.parametrize("name, said", [
    ("shuffle", "{a} got it from {a}."), ("shuffle", "{a} had the ball at first. {b} had the ball at first."),
    ("coin", "{a}, {b} and {a} flip."), ("coin", "That is 99 flips."), ("coin", "4 is odd, so tails."), ("arith", "99 + 1 = 100."),
    ("relations", "Glacier is hotter than desert."),
    ("relations", "Colder means more sun."), ("entail", "Every vont is a gorp, so no vont is neat."), ("dates", "31 - 30 = 2."),
    ("letters", "apple: q q."), ("strategy", "The boss of Zib is Zib.")])
@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_what_no_derivation_says_is_found_in_each(name, said, seed):
    i, told = in_each_way(name, seed)
    people = [p for p in NAMES if p not in i.question][:2]  # a question may name five
    for _, text in told:
        c = FAMILIES[name].check(i, f"{said.format(a=people[0], b=people[1])} {text} So the answer is: {i.answer}")
        assert not c.sound, (text, c)

def test_twins_are_questions_with_other_names():
    ann, bob, both = (renamed(q) for q in ("Ann has 3 pens. Ann buys 2 more.", "Bob has 3 eggs. Bob buys 2 more.",
                                           "Bob has 3 eggs. Ann buys 2 more."))
    assert ann == bob != both

@names
def test_no_test_question_has_a_twin_that_was_taught(name):
    t, other = procedural_task(name, 200, 20, 200, 3), procedural_task(name, 200, 20, 200, 4)
    taught = {renamed(i.question) for x in (t, other) for k in ("train", "selection") for i in x.split(k)}
    assert not any(renamed(i.question) in taught for i in t.split("test"))

ANN = Instance("", "Ann has 3 pens. Ann buys 2 more. Ann loses 1. How many pens does Ann have now?", "4",
               trace=((3, "+", 2, 5), (5, "-", 1, 4)))

@pytest.mark.parametrize("text", [
    "3+2=5. 5-1=4.", "3 + 2 = 5 - 1 = 4.", "3 + 2 - 1 = 4.", "Three plus two is five; five minus one is four", "3 + 2 = 5.\n5 − 1 = 4",
    "Ann starts with 3 pens. She buys 2 more, so she has 5. She loses 1, so she has 4 pens left.",
    "3 pens + 2 pens = 5 pens. 5 pens - 1 pen = 4 pens.",
    "We need to find how many pens Ann has now. 2 + 3 = 5, 5 - 1 = 4.", "3 + 2 = 5. 5 - 1 = 4. The answer is 4 pens."])
def test_sums_in_other_words(text): assert FAMILIES["arith"].check(ANN, text).sound

@pytest.mark.parametrize("text", [
    "4 + 1 = 5. 5 - 1 = 4.", "2 - 3 = 5. 5 - 1 = 4.", "3 + 2 = 5. 1 - 5 = 4.", "3 + 2 = 5 - 1 = 6.", "3 + 2 = 5. 5 - 1 = 4 dogs.",
    "3 + 2 = 5. 5 - 1 = 4 cups.",
    "3 + 2 = 5. 5 - 1 = 4. So Bob has 4 pens.", "Ann buys 9 more. 3 + 2 = 5. 5 - 1 = 4.", "3 + 2 = 5. Then Ann has 6 pens. 5 - 1 = 4.",
    "13 + 2 = 5. 5 - 1 = 4.",
    "3 + 2 = 5.5. 5 - 1 = 4.", "3 + 2 = 5. 5 - 1 = 4. The answer is 4 because 9 + 9 = 4.",
    "3 + 2 = 5. The answer is 9. 5 - 1 = 4. The answer is 4.",
    "3 + 2 = 5 if it rains. 5 - 1 = 4.", "It is not true that 3 + 2 = 5. 5 - 1 = 4.",
    "3 + 2 = 5. 5 - 1 = 4. The answer is 4. Ann has 8 dogs."])
def test_wrong_sums_in_other_words(text): assert not FAMILIES["arith"].check(ANN, text).sound

@names
def test_checker_is_quick_on_any_text(name):
    i, r = fresh(name, 1)
    for text in (f"{r} " * 12000, "a" * 10**6, " " * 10**6, "\n" * 10**6, "so the " * 140000, "9" * 10**6, "1 + " * 250000,
                 "answer is " * 100000, "(" * 10**6,
                 f"{'9' * 5000} + 1 = {'9' * 5000}.", "Carl flips, so " * 70000, "the friend of " * 70000, "\u0660\u0130\ud800" * 300000):
        start = process_time()
        assert not FAMILIES[name].check(i, text).sound
        assert process_time() - start < 5


# --- every order of gains and losses

ARITH = list(procedural_task("arith", n_train=120, n_selection=0, n_test=1, seed=31).split("train"))


def joined(instance, rng):
    "Steps that join all numbers of a question in an order of their own."
    bags, events = [t for t in instance.trace if t[1] == "*"], [t[1:3] for t in instance.trace if t[1] != "*"]
    parts = [(bags[0][3] if bags else instance.trace[0][0], 1), *((b, 1 if o == "+" else -1) for o, b in events)]
    steps = list(bags)
    while len(parts) > 1:
        (x, s), (y, t) = a, b = rng.sample(parts, 2)
        if s != t and (x < y or x == y and s < t): (x, s), (y, t) = (y, t), (x, s)
        value = x + y if s == t else x - y
        if s != t and value == 0 and len(parts) > 2: continue
        parts = [p for p in parts if p is not a and p is not b] + [(value, s)]
        steps.append((x, "+" if s == t else "-", y, value))
    return steps if parts[0][1] == 1 else None


@given(st.integers(0, len(ARITH) - 1), st.randoms(use_true_random=False))
def test_every_order_of_gains_and_losses_is_right(k, rng):
    instance, family = ARITH[k], FAMILIES["arith"]
    steps = joined(instance, rng)
    assume(steps is not None)
    told = [f"{a} {o} {b} = {c}." for a, o, b, c in steps]
    answer = f" So the answer is: {instance.answer}"
    assert family.check(instance, " ".join(told) + answer).sound, told
    j = rng.randrange(len(told))
    a, o, b, c = steps[j]
    wrong = [*told[:j], f"{a} {o} {b} = {c + 1}.", *told[j + 1:]]
    assert not family.check(instance, " ".join(wrong) + answer).sound, "one value is off"
    if len(told) > 2: assert not family.check(instance, " ".join(told[:-1]) + answer).sound, "a step is missing"


def test_the_orders_that_were_taken_for_luck():
    asked = "Ned has 8 books. Ned sells 5 books. Ned buys 14 more. Ned finds 19 books. How many books does Ned have now?"
    ned = Instance("", asked, "36", (), "arith:x", "arith:y", ((8, "-", 5, 3), (3, "+", 14, 17), (17, "+", 19, 36)))
    check = lambda said: FAMILIES["arith"].check(ned, said + " So the answer is: 36").sound
    for said in ("8 + 14 = 22. 22 + 19 = 41. 41 - 5 = 36.", "8 - 5 = 3. 3 + 19 = 22. 22 + 14 = 36.",
                 "14 - 5 = 9. 8 + 9 = 17. 17 + 19 = 36.", "14 + 19 = 33. 33 - 5 = 28. 8 + 28 = 36."): assert check(said), said
    for said in ("8 + 14 = 22. 22 + 19 = 41. 41 - 4 = 36.", "8 + 5 = 13. 13 + 14 = 27. 27 + 9 = 36.",
                 "5 + 14 = 19. 19 + 19 = 38. 38 - 2 = 36.", "8 + 14 = 22. 22 + 14 = 36."): assert not check(said), said


# --- derivations of one's own, and what is like them and wrong

def verdict(name: str, i: Instance, said: list[str]) -> bool:
    return FAMILIES[name].check(i, f"{' '.join(said)} So the answer is: {i.answer}").sound

def spoilt(said: list[str], pattern: str, make, rng: Random) -> list[str]:
    "One place of one sentence changed."
    k = rng.choice([k for k, s in enumerate(said) if re.search(pattern, s)])
    return [swapped_words(s, rng, pattern, make) if j == k else s for j, s in enumerate(said)]

own = settings(max_examples=30, deadline=None)

@own
@given(seed=seeds)
def test_letters_may_be_found_in_any_order_and_alone_or_in_a_row(seed):
    i, rng = fresh("letters", seed)[0], Random(seed)
    letters = [f"{w} ends in {c}." for w, c in i.trace]
    rows = [f"With {w}: {' '.join(c for _, c in i.trace[:k + 1])}." for k, (w, _) in enumerate(i.trace)]
    mixed = [rng.choice(both_) for both_ in zip(letters, rows)]
    joined_ = f"Joined: {i.answer}."
    assert verdict("letters", i, [*rng.sample(letters, len(letters)), joined_]) and verdict("letters", i, [*mixed, joined_])
    assert verdict("letters", i, [f"The last letters are {', '.join(c for _, c in i.trace)}.", joined_])
    wrong = spoilt(letters, r"[a-z](?=\.)", lambda m: "q", rng)
    assert not verdict("letters", i, [*wrong, joined_]) and not verdict("letters", i, [joined_, *letters])
    assert not verdict("letters", i, [*letters[1:], joined_]) and not verdict("letters", i, [*rows[::-1], joined_])

@own
@given(seed=seeds)
def test_what_follows_from_what_may_be_said_before_what_is_compared(seed):
    i, rng = fresh("relations", seed)[0], Random(seed)
    *links, end = [FAMILIES["relations"].write(i, rng).split(". ")][0]
    links, end = [f"{s}." for s in links if not s.startswith("Asked")], end
    told = rng.sample(links, len(links))
    assert verdict("relations", i, [*told, end])
    assert not verdict("relations", i, [end, *told]) and not verdict("relations", i, [*told[1:], end])
    high, word, low_ = i.trace[0][1]
    clauses = ", which means ".join([f"{high} is {word} than {low_}", *(v for _, v in i.trace[1:-1])])
    assert verdict("relations", i, [clauses + ".", end])
    assert not verdict("relations", i, [spoilt([clauses + "."], r"\b(?:more|less)\b", opposite_side, rng)[0], end])

@own
@given(seed=seeds)
def test_facts_may_be_told_in_any_order(seed):
    i, rng = fresh("facts", seed)[0], Random(seed)
    told = list(dict.fromkeys(say_fact(0, r, w, v) for (r, w), v in i.trace))
    assert verdict("facts", i, told[::-1]) and verdict("facts", i, rng.sample(told, len(told)))
    assert not verdict("facts", i, rng.sample(told, len(told) - 1))

@pytest.mark.parametrize("name", ["facts", "strategy"])
@own
@given(seed=seeds)
def test_questions_that_a_text_answers_itself(name, seed):
    i, rng = fresh(name, seed)[0], Random(seed)
    ask = dict(home="Where does {w} live? In the {v}.", food="What does {w} eat? It is {v}.", colour="Which colour is {w}? It is {v}.")
    told = [ask.get(r, "Who is the {r} of {w}? {v}.").format(r=r, w=w, v=v) for (r, w), v in (s for s in i.trace if s[0] != "verdict")]
    end = [f"So they are {i.trace[-1][1]}."] * (name == "strategy")
    (r, _), v = i.trace[-1 - (name == "strategy")]
    assert verdict(name, i, told + end)
    assert not verdict(name, i, [*told[:-1], told[-1].replace(v, other(rng, TRAITS[r], v)), *end])
    assert not verdict(name, i, [x for x in told if x != told[0]] + end)

@own
@given(seed=seeds)
def test_days_may_be_gone_in_any_parts(seed):
    i, rng = fresh("dates", seed)[0], Random(seed)
    today, days = asked_date(i)
    first, op = rng.randint(1, abs(days) - 1), "-" if days < 0 else "+"
    said, at, to = [f"Today is {say_date(today)}."], today[0], today
    hops = list(said)
    for n in (first, abs(days) - first):
        at, to, before = (at - n, move(to, -n), at) if days < 0 else (at + n, move(to, n), at)
        said.append(f"{before} {op} {n} = {at}.")
        hops.append(f"{n} days {'earlier' if days < 0 else 'later'} it is {say_date(to)}.")
    assert verdict("dates", i, hops) and not verdict("dates", i, hops[:1] + hops[2:]) and not verdict("dates", i, hops[:-1])
    end = [f"So the date is {i.answer}."]
    if move(today, days)[1] == today[1] and today[0] != abs(days):  # known: a day and a number of days that are one number
        assert verdict("dates", i, said + end) and not verdict("dates", i, said[:-1] + end) and not verdict("dates", i, [*said[::-1], *end])
        assert not verdict("dates", i, [*said[:2], said[2].replace(f"= {at}", f"= {at + 1}"), *end])
    assert not verdict("dates", i, [*hops[:-1], hops[-1].replace(say_date(to), say_date(move(to, 1)))])

@own
@given(seed=seeds)
def test_the_thing_may_be_followed_from_hand_to_hand(seed):
    i, rng = fresh("shuffle", seed)[0], Random(seed)
    at, told = next(p for p, t in held_at_start(i).items() if t == i.answer), []
    for a, b in pairs_of(i):
        now = b if at == a else a if at == b else at
        told.append(f"{a} and {b} swap, so the {i.answer} {'stays with' if now == at else 'goes to'} {now}.")
        at = now
    assert verdict("shuffle", i, told) and not verdict("shuffle", i, told[:-1])
    k = rng.randrange(len(told))
    wrong = re.sub(r"\w+(?=\.$)", lambda m: other(rng, list(held_at_start(i)), m[0]), told[k])
    assert not verdict("shuffle", i, [*told[:k], wrong, *told[k + 1:]])

@own
@given(seed=seeds)
def test_rules_may_be_joined_in_any_order_that_is_told(seed):
    i = FAMILIES["entail"].draw(Random(seed), depth=(3, 3))
    name, chain, quality, end = i.trace[0]
    assume(end != "unknown")
    a, b, c = chain
    last = f"{'No' if end.startswith('not') else 'Every'} {c} is {quality}."
    told = [f"Every {a} is a {b} and every {b} is a {c}, so every {a} is a {c}.", f"{name} is a {a}, so {name} is a {c}.", last,
            f"So {name} is {end}."]
    assert verdict("entail", i, told)
    assert not verdict("entail", i, [told[0].split("so ")[1].capitalize(), *told[1:]]), "a rule out of nothing"
    assert not verdict("entail", i, [told[0].replace(f"Every {a} is a {b}", f"Every {b} is a {a}"), *told[1:]])
    assert not verdict("entail", i, told[:-1]) and not verdict("entail", i, [told[3], *told[:3]])
    he = [re.sub(rf"\b{name} is (?!a {a})", "he is ", s) for s in told]
    assert verdict("entail", i, he)

@own
@given(seed=seeds)
def test_only_those_who_flip_may_be_followed_where_the_others_are_named(seed):
    i, rng = fresh("coin", seed)[0], Random(seed)
    flips, idle, side, told = [p for p, d, _ in i.trace if d], [p for p, d, _ in i.trace if not d], "heads", []
    assume(len(idle) > 1 and flips)
    others = f"{', '.join(idle[:-1])} and {idle[-1]} do not flip."
    for p in flips:
        side = "tails" if side == "heads" else "heads"
        told.append(f"{p} flips the coin to {side}.")
    assert verdict("coin", i, [others, *told]) and verdict("coin", i, [*told, others])
    k = rng.randrange(len(told))
    assert not verdict("coin", i, [others, *told[:k], *told[k + 1:]])
    assert not verdict("coin", i, [others, *spoilt(told, "heads|tails", opposite_side, rng)])
    assert not verdict("coin", i, [others.replace(idle[0], flips[0]), *told])

@own
@given(seed=seeds)
def test_parts_of_a_review_may_be_judged_together(seed):
    i = fresh("sentiment", seed)[0]
    by = {t: [(p, ("not " if n else "") + a) for (p, a, n), s in i.trace if s == t] for t in ("positive", "negative")}
    def those(parts, is_="is "): return [f"the {p} {is_}{w}" for p, w in parts]
    def group(parts, t): return [f"{', '.join(those(parts))}; these are {t}.", f"{t.capitalize()}: {', '.join(those(parts))}."]
    ends = [f"So {len(by['positive'])} positive and {len(by['negative'])} negative.",
            f"The sum is {len(by['positive']) - len(by['negative'])}, so {i.answer}."]
    for k, end in ((0, ends[0]), (1, ends[1]), (1, ends[0])):
        assert verdict("sentiment", i, [*(group(parts, t)[k] for t, parts in by.items()), end])
        strays = {"positive": by["positive"][1:], "negative": [*by["negative"], by["positive"][0]]}
        assert not verdict("sentiment", i, [*(group(parts, t)[k] for t, parts in strays.items() if parts), end])
        assert not verdict("sentiment", i, [group(by[i.answer], i.answer)[k], end])
    words = {(a, n) for (_, a, n), _ in i.trace}
    assert verdict("sentiment", i, [*(f"{'Not ' * n}{a} is {tone(a, n)}." for a, n in words), ends[0]])

@own
@given(seed=seeds)
def test_a_word_may_be_explained_before_it_is_turned_round(seed):
    i = fresh("sst", seed)[0]
    told = [f"{w.split()[-1]} is {tone(w.split()[-1], False)}, but {w} is {t}." if " " in w else f"{w} is {t}." for w, t in i.trace]
    wrong = [f"{w.split()[-1]} is {t}, but {w} is {t}." if " " in w else f"{w} is {t}." for w, t in i.trace]
    assert verdict("sst", i, told) and verdict("sst", i, [f"The movie is {i.trace[0][0]}, which is {i.answer}.", *told[1:]])
    assert wrong == told or not verdict("sst", i, wrong)

@own
@given(seed=seeds)
def test_a_sum_may_be_made_shorter_from_side_to_side(seed):
    i, rng = fresh("arith", seed)[0], Random(seed)
    rest = [f" {o} {b}" for _, o, b, _ in i.trace]
    sides = [f"{a}{''.join(rest[k:])}" for k, (a, *_) in enumerate(i.trace)]
    told = " = ".join([*sides, i.answer]) + "."
    assert verdict("arith", i, [told]) and not verdict("arith", i, [" = ".join([*sides[:-1], str(int(i.answer) + 1)]) + "."])
    steps = [f"{dict(zip('+-*', ('Add', 'Subtract', 'Times')))[o]} {b} to get {c}." for _, o, b, c in i.trace]
    assume(i.trace[0][1] != "*")
    start = [f"Start with {i.trace[0][0]}."]
    assert verdict("arith", i, start + steps) and not verdict("arith", i, start + steps[1:])
    assert not verdict("arith", i, start + spoilt(steps, r"\d+(?=\.)", lambda m: str(int(m[0]) + 1), rng))


# --- in short: a history in a line, signed changes, lists and arrows

def histories_of(i: Instance) -> dict[str, list[str]]:
    "What each holds at first and after each swap."
    held = held_at_start(i)
    out = {p: [t] for p, t in held.items()}
    for a, b in pairs_of(i):
        held[a], held[b] = held[b], held[a]
        for p in out: out[p].append(held[p])
    return out

@own
@given(seed=seeds)
def test_totals_and_changes_may_stand_in_a_line(seed):
    i, rng = fresh("arith", seed)[0], Random(seed)
    bags, events = [t for t in i.trace if t[1] == "*"], [t for t in i.trace if t[1] != "*"]
    first = [f"{a} * {b} = {c}." for a, _, b, c in bags]
    totals = [events[0][0], *(t[3] for t in events)]
    assert verdict("arith", i, [*first, " -> ".join(map(str, totals)) + "."])
    k = rng.randrange(1, len(totals))
    assert not verdict("arith", i, [*first, " -> ".join(str(n + 1000 * (j == k)) for j, n in enumerate(totals)) + "."])
    assume(len(events) > 1)
    assert not verdict("arith", i, [*first, " -> ".join(str(n) for j, n in enumerate(totals) if j != 1) + "."])
    changes, net = " ".join(f"{o}{b}" for _, o, b, _ in events), totals[-1] - totals[0]
    end = f"{totals[0]} {'-' if net < 0 else '+'} {abs(net)} = {i.answer}."
    assert verdict("arith", i, [*first, f"The changes: {changes} = {net}.", end])
    assert not verdict("arith", i, [*first, f"The changes: {changes} = {net + 1}.", end])
    assert not verdict("arith", i, [*first, f"The changes: {changes.replace(changes[1], str(int(changes[1]) + 1), 1)} = {net}.", end])

@own
@given(seed=seeds)
def test_what_somebody_held_may_stand_in_a_line(seed):
    i, rng = fresh("shuffle", seed)[0], Random(seed)
    rows, who = histories_of(i), i.trace[0][1]
    end = f"So {who} has the {i.answer}."
    assert verdict("shuffle", i, [f"{who}: {' -> '.join(rows[who])}.", end])
    table = " -> ".join(f"({', '.join(now)})" for now in zip(*rows.values())) + f" for {', '.join(rows)}."
    assert verdict("shuffle", i, [table, end])
    k = rng.randrange(len(rows[who]) - 1)
    wrong = list(rows[who])
    wrong[k] = other(rng, [t for r in rows.values() for t in r], rows[who][k])
    assert not verdict("shuffle", i, [f"{who}: {' -> '.join(wrong)}.", end])
    someone = other(rng, rows, who)
    false = [*rows[someone][:-1], i.answer]
    assert not verdict("shuffle", i, [f"{who}: {' -> '.join(rows[who])}.", f"{someone}: {' -> '.join(false)}.", end])

@own
@given(seed=seeds)
def test_days_letters_and_facts_may_stand_in_a_line(seed):
    i, rng = fresh("dates", seed)[0], Random(seed)
    today, days = asked_date(i)
    first, way = rng.randint(1, abs(days) - 1), 1 if days > 0 else -1
    mid = say_date(move(today, way * first))
    line = f"{say_date(today)} -> {mid} ({{}} days) -> {i.answer} ({abs(days) - first} days)."
    start = f"Today is {say_date(today)}."
    assert verdict("dates", i, [start, line.format(first)]) and not verdict("dates", i, [start, line.format(first + 1)])
    i = fresh("letters", seed)[0]
    pairs, end = [f"{c} from {w}" for w, c in i.trace], f"Together: {i.answer}."
    assert verdict("letters", i, [", ".join(rng.sample(pairs, len(pairs))) + ".", end])
    assert not verdict("letters", i, [", ".join(pairs[1:]) + ".", end])
    assert not verdict("letters", i, [", ".join(["q" + pairs[0][1:], *pairs[1:]]) + ".", end])
    i = fresh("facts", seed)[0]
    line = " -> ".join([i.trace[0][0][1], *(f"{r} {v}" for (r, _), v in i.trace[:-1]), i.trace[-1][1]]) + "."
    assert verdict("facts", i, [line])
    (r, _), v = i.trace[rng.randrange(len(i.trace) - 1)]
    assert not verdict("facts", i, [line.replace(f"{r} {v}", f"{r} {other(rng, CREATURES, v)}")])

@own
@given(seed=seeds)
def test_who_flips_may_be_told_by_who_does_not(seed):
    i = fresh("coin", seed)[0]
    flip, idle = ([p for p, does, _ in i.trace if does == b] for b in (True, False))
    sides = ["heads", *(s for *_, s in i.trace)]
    assert verdict("coin", i, [" -> ".join(sides) + ".", f"So it is {sides[-1]} up."])
    wrong = [opposite_side(re.match("heads|tails", s)) if k == 1 else s for k, s in enumerate(sides)]
    assert not verdict("coin", i, [" -> ".join(wrong) + ".", f"So it is {sides[-1]} up."])
    assume(len(idle) > 1 and len(flip) > 1)
    n = len(flip)
    rest = [f"That is {n} flips.", f"{n} is {'odd' if n % 2 else 'even'}, so {sides[-1]}."]
    assert verdict("coin", i, [f"All but {' and '.join(idle)} flip.", *rest])
    assert not verdict("coin", i, [f"All but {' and '.join(idle[1:])} flip.", *rest])
    assert not verdict("coin", i, [f"All but {' and '.join([*idle[1:], flip[0]])} flip.", *rest])

@own
@given(seed=seeds)
def test_what_follows_may_be_said_of_the_thing_itself(seed):
    i, rng = fresh("relations", seed)[0], Random(seed)
    (_, (a, word, b)), *links, (_, (gold, asked)) = i.trace
    assume(len(links) > 1)
    told = [f"{a} is {word} than {b}.".capitalize(), *(f"So {a} has {v}." for _, v in links)]
    end = f"So {gold} has {asked}."
    assert verdict("relations", i, [*told, end]) and verdict("relations", i, [told[0], *(f"So it has {v}." for _, v in links), end])
    assert not verdict("relations", i, [told[0], *told[2:], end]) and not verdict("relations", i, [told[0], end])
    assert not verdict("relations", i, [*spoilt(told[:-1], r"\b(?:more|less)\b(?= )", opposite_side, rng), told[-1], end])

@own
@given(seed=seeds)
def test_a_review_may_be_told_in_lists_and_signs(seed):
    i = fresh("sentiment", seed)[0]
    by = {t: [f"{'not ' * n}{a}" for (_, a, n), v in i.trace if v == t] for t in ("positive", "negative")}
    end = f"So {len(by['positive'])} positive and {len(by['negative'])} negative."
    lists = [f"{t.capitalize()}: {', '.join(words)}." for t, words in by.items()]
    signs = ", ".join(f"{p}: {'+' if t == 'positive' else '-'}" for (p, *_), t in i.trace) + "."
    assert verdict("sentiment", i, [*lists, end]) and verdict("sentiment", i, [signs, end])
    stray = by["positive"][0]
    assert not verdict("sentiment", i, [lists[0], lists[1].replace(":", f": {stray},"), end])
    assert not verdict("sentiment", i, [lists[0], end]) and not verdict("sentiment", i, [signs.replace(": +", ": -", 1), end])
    i = fresh("sst", seed)[0]
    sign = {"positive": "+", "negative": "-"}
    assert verdict("sst", i, [", ".join(f"{w} ({sign[t]})" for w, t in i.trace) + "."])
    assert not verdict("sst", i, [", ".join(f"{w} ({sign[t]})" for w, t in i.trace).translate(str.maketrans("+-", "-+")) + "."])

@own
@given(seed=seeds)
def test_rules_may_stand_in_a_line_and_the_claim_is_about_somebody(seed):
    i = fresh("entail", seed)[0]
    name, chain, _, end = i.trace[0]
    someone = next(n for n in ("Ann", "Bob") if n != name)
    asked = i.question.split("Claim: ")[1].split(" is ")[1].split(".")[0]
    claim = f"Claim: {{}} is {asked}."
    text = FAMILIES["entail"].write(i, Random(seed)).split(" Claim:")[0]
    assert verdict("entail", i, [text, claim.format(name)]) and not verdict("entail", i, [text, claim.format(someone)])
    assume(end != "unknown" and len(chain) > 1)
    told = [f"{name} is a {chain[0]}.", f"So {name} is {end}."]
    assert verdict("entail", i, [" -> ".join([*chain, end]) + ".", *told])
    assert not verdict("entail", i, [" -> ".join([*chain[::-1], end]) + ".", *told])


def test_a_situation_is_the_same_whatever_stands_first():
    i = next(i for i in procedural_task("strategy", seed=7).split("test") if i.scenario.count(" and ") == 1)
    a, b = re.fullmatch(r"Do (.*) and (.*) (?:live|eat|have) .*", i.question).groups()
    n = 1 + next(k for k, ((r, _), _) in enumerate(i.trace[:-1]) if r in TRAITS)
    turned = [x.replace(f"{a} and {b}", f"{b} and {a}") for x in (i.question, i.scenario)]
    other = Instance("", turned[0], i.answer, scenario=turned[1], trace=(*i.trace[n:-1], *i.trace[:n], i.trace[-1]))
    assert situation(i) == situation(other) and i.scenario != other.scenario
    made = lambda scenario: situation(Instance("", "?", "x", scenario=scenario))
    assert made("sst:bad clumsy") == made("sst:clumsy bad") != made("sst:bad calm")
    assert made("shuffle:01 02:0") == made("shuffle:12 01:1") != made("shuffle:01 02:1")
    assert made("coin:0100") == "coin:0100"


@pytest.mark.parametrize("name, difficulty, said", [
    ("relations", dict(hops=(1, 5)), "hops"), ("coin", dict(flips=(0, 0)), "flips"), ("letters", dict(words=(40, 50)), "words"),
    ("arith", dict(steps=4), "something like"), ("arith", dict(steps=(4, 2)), "steps"), ("arith", dict(large=7), "share"),
    ("arith", dict(large="a"), "share"), ("dates", dict(shifts=(("40 days later", 40),)), "28"), ("sentiment", dict(parts=[6]), "odd"),
    ("sentiment:contrast", dict(parts=[5, 6]), "odd"), ("sst", dict(negated=2), "share"), ("arith", dict(steps=[-1, 2]), "from 1"),
    ("relations", dict(hops=(0, 0)), "from 1"), ("strategy", dict(hops=(1.5, 2)), "from 1"), ("coin", dict(flips=(5, 6, 7)), "from 1"),
    ("entail", dict(depth=(0, 2)), "depth")])
def test_a_difficulty_that_cannot_be_drawn_is_one_sentence(name, difficulty, said):
    with pytest.raises(ValueError, match=said): procedural_task(name, 5, 2, 5, **difficulty)


def test_difficulties_may_be_lists_as_in_a_study_file():
    assert procedural_task("dates", 3, 1, 3, shifts=[["3 days later", 3], ["9 days ago", -9]]).split("test")
    assert procedural_task("arith", 3, 1, 3, steps=[2, 3], large=0).split("test")
