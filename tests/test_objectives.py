"""Objectives: what is minimised is what their names say, and on-policy completions are the student's own."""
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from test_students import V, examples, model, net_of, words

from cotstudy.objectives import OwnWords, Towards, forward_kl, response_logits, reverse_kl, same_reading
from cotstudy.sampling import LM
from cotstudy.students import Example, Recipe, Row, read_record, single_nll, tokenise, train


@pytest.fixture(autouse=True)
def one_thread():
    n = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n)


def rows_of(seed=0, n=3):
    rng = np.random.default_rng(seed)
    def ids(k): return tuple(int(x) for x in rng.integers(3, V, size=k))
    return [Row(f"q{i}", ids(rng.integers(2, 9)), tuple(ids(rng.integers(1, 7)) for _ in range(1 + i % 3)), tuple([1, 2, 1][: 1 + i % 3]))
            for i in range(n)]


logits = st.lists(st.floats(-6, 6), min_size=4, max_size=4)


@given(logits, logits)
@settings(max_examples=50)
def test_divergences_are_those_of_the_textbook(a, b):
    theirs, mine = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64, requires_grad=True)
    p, q = (np.exp(x) / np.exp(x).sum() for x in (np.array(a), np.array(b)))
    assert forward_kl(theirs, mine).item() == pytest.approx((p * np.log(p / q)).sum(), abs=1e-9)
    assert reverse_kl(theirs, mine).item() == pytest.approx((q * np.log(q / p)).sum(), abs=1e-9)
    assert all(kl(theirs, theirs).item() == pytest.approx(0, abs=1e-12) for kl in (forward_kl, reverse_kl))
    (forward,) = torch.autograd.grad(forward_kl(theirs, mine).sum(), mine)
    np.testing.assert_allclose(forward[0].numpy(), q - p, atol=1e-9)
    (reverse,) = torch.autograd.grad(reverse_kl(theirs, mine).sum(), mine)
    log_ratio = np.log(q / p)
    np.testing.assert_allclose(reverse[0].numpy(), q * (log_ratio - (q * log_ratio).sum()), atol=1e-8)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt", "t5"])
def test_response_logits_hold_the_likelihood_of_the_response(kind):
    net, rows = net_of(kind), rows_of()
    with torch.no_grad():
        found, weight = response_logits(net, rows)
        said = torch.tensor([t for r in rows for c in r.completions for t in c])
        nll = -(found.log_softmax(-1).gather(-1, said[:, None])[:, 0] * weight).sum()
    with torch.no_grad(): assert nll.item() == pytest.approx(single_nll(net, rows).item(), rel=1e-4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("divergence", [forward_kl, reverse_kl])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(kind, divergence):
    teacher = LM(net_of(kind), words(), "t", "t-1")
    student, rows = net_of(kind), rows_of()
    loss = Towards(teacher, divergence)(student, rows)
    loss.backward()
    assert abs(loss.item()) < 1e-4
    assert max(p.grad.abs().max().item() for p in student.parameters() if p.grad is not None) < 1e-4
    other = Towards(LM(net_of(kind, seed=1), words(), "t", "t-2"), divergence)(student, rows)
    assert other.item() > 0.01


def test_the_gradient_at_the_output_is_the_students_probability_minus_the_teachers():
    "By hand, through the whole network: the bias of an output layer gets the sum of q - p over all response tokens."
    rows, student, teacher = rows_of(), net_of("llama"), net_of("llama", seed=3)
    bias = torch.zeros(V, requires_grad=True)
    hook = student.lm_head.register_forward_hook(lambda module, args, out: out + bias)
    Towards(LM(teacher, words(), "t", "t"), forward_kl)(student, rows).backward()
    hook.remove()
    with torch.no_grad():
        q, weight = response_logits(student, rows)
        p, _ = response_logits(teacher, rows)
    by_hand = ((q.softmax(-1) - p.softmax(-1)) * weight[:, None]).sum(0)
    torch.testing.assert_close(bias.grad, by_hand, rtol=1e-3, atol=1e-5)


def test_a_teacher_may_read_another_prompt():
    rows, student, teacher = rows_of(), net_of("llama"), LM(net_of("llama", seed=3), words(), "t", "t")
    longer = {r.prompt: (5, 6, 7, *r.prompt) for r in rows}
    plain, shown = Towards(teacher, forward_kl), Towards(teacher, forward_kl, longer)
    with torch.no_grad():
        mine, weight = response_logits(student, rows)
        theirs, _ = response_logits(teacher.net, [replace(r, prompt=longer[r.prompt]) for r in rows])
        assert shown(student, rows).item() == pytest.approx((forward_kl(theirs, mine) * weight).sum().item(), rel=1e-5)
    assert plain.name != shown.name and plain.name != Towards(teacher, reverse_kl).name


def test_models_that_read_differently_are_refused():
    mine, other = model(), LM(net_of("llama"), words(), "other", "o")
    same_reading(mine, other)
    other.tokenizer.add_tokens(["new"])
    with pytest.raises(ValueError, match="different tokenizers"): same_reading(other, mine)
    with pytest.raises(ValueError, match="weights are here"): same_reading(type("Far", (), dict(name="api:x"))(), mine)


# --- on-policy ---

def asked(lm, n=3):
    made = examples()[:n]
    return made, tokenise(lm, [Example(e.instance, e.prompt, ("w3",)) for e in made], Recipe(), True)[0]


def test_on_policy_completions_come_from_the_student_of_this_moment():
    lm = model()
    made, rows = asked(lm)
    own = OwnWords(made, 8, (), seed=0)
    first = own(lm, rows, 0)
    assert [r.prompt for r in first] == [r.prompt for r in rows] and own(lm, rows, 0) == first != own(lm, rows, 1)
    assert OwnWords(made, 8, (), seed=1)(lm, rows, 0) != first
    with torch.no_grad():  # a student that can only say w7
        lm.net.lm_head.weight.zero_()
        lm.net.lm_head.weight[7] = 1.0
        weights = lm.net.lm_head.weight.clone()
        hook = lm.net.lm_head.register_forward_hook(lambda m, a, out: torch.where(torch.arange(V) == 7, 50.0, -50.0).expand_as(out))
        said = own(lm, rows, 0)
        hook.remove()
    assert {t for r in said for c in r.completions for t in c} == {7} and torch.equal(weights, lm.net.lm_head.weight)


def test_on_policy_draws_follow_the_students_distribution():
    lm = model()
    made, rows = asked(lm, 1)
    rows = [replace(rows[0], weights=(400,))]
    own = OwnWords(made, 1, (), seed=0)
    drawn = np.bincount([c[0] for r in own(lm, rows, 0) for c in r.completions], minlength=V)
    with torch.no_grad(): p = lm.net(input_ids=torch.tensor([rows[0].prompt])).logits[0, -1].softmax(-1).numpy()
    assert drawn.sum() == 400 and np.abs(drawn / 400 - p).max() < 5 * math.sqrt(0.25 / 400)
    top = np.argsort(-p)[:10]
    assert abs(drawn[top].sum() / 400 - p[top].sum()) < 0.12


def test_training_on_its_own_words_resumes_and_comes_nearer_to_the_teacher(tmp_path):
    teacher = LM(net_of("llama", seed=5), words(), "t", "t-5")
    recipe, made = Recipe(steps=12, batch=6, lr=1e-2), examples()
    def go(where, **kw):
        own = OwnWords(made, 6, (), seed=0)
        return train(model(), made, recipe, tmp_path / where, eos=True, objective=Towards(teacher, reverse_kl), write=own, **kw)
    calm = read_record(go("calm"))
    assert np.mean(calm["losses"][-3:]) < 0.7 * calm["losses"][0] and calm["form"].startswith("reverse_kl")

    def interrupt(step, steps, loss):
        if step == 5: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): go("torn", progress=interrupt, checkpoint_s=0)
    go("torn")
    assert (tmp_path / "calm/model.safetensors").read_bytes() == (tmp_path / "torn/model.safetensors").read_bytes()
    plain = train(model(), made, recipe, tmp_path / "plain", eos=True)
    assert read_record(plain)["fingerprint"] != calm["fingerprint"]
