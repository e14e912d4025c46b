"""What a training takes is told before it begins, from a name alone as from the network itself."""
from cotstudy import memory
from cotstudy.conditions import base_of, vary
from cotstudy.memory import Shape, memory_of, room_of, shape_guess, shape_of, student_memory
from cotstudy.models import HUB, load
from cotstudy.openers import n_params_of
from cotstudy.recipes import Example, Recipe
from cotstudy.students import adapt, needed_memory, tokenise
from cotstudy.studies import GPU, largest_memory

USUAL = Recipe()


def test_every_familys_names_are_read():
    assert shape_of(dict(n_embd=8, n_layer=3, vocab_size=9, n_inner=None)) == (3, 8, 32, 9)  # GPT-2
    assert shape_of(dict(hidden_size=8, num_hidden_layers=3, ffn_dim=20, vocab_size=9)) == (3, 8, 20, 9)  # OPT
    assert shape_of(dict(d_model=8, num_layers=2, num_decoder_layers=4, d_ff=16, vocab_size=9)) == (4, 8, 16, 9)  # T5
    sees = dict(vocab_size=1, text_config=dict(hidden_size=8, num_hidden_layers=3, intermediate_size=24, vocab_size=9))
    assert shape_of(sees) == (3, 8, 24, 9)


def test_a_guessed_shape_has_about_the_parameters_of_its_model():
    for m in HUB.values():
        s = shape_guess(m.n_params)
        n = s.layers * 12 * s.width**2 + s.vocab * s.width
        assert 0.55 * m.n_params < n <= m.n_params


def test_a_name_tells_what_the_network_tells():
    name = "pocket/m"
    for plan in (USUAL, Recipe(gradient_checkpointing=True), Recipe(lora_rank=4)):
        lm = load(name)
        rows, _ = tokenise(lm, [Example(str(k), "Ann has 3 pens. " * 9, ("So 3. " * 9,)) for k in range(40)], plan, True)
        adapt(lm, plan)
        told, found = student_memory(name, plan, 512), needed_memory(lm, rows, plan, 512)
        assert told.activations == found.activations and abs(told.weights / found.weights - 1) < 0.1
        assert told.moments == 2 * told.gradients and 0.4 < told.gradients / found.gradients < 2.5


def test_what_saves_memory_saves_it():
    n, all_ = n_params_of("hub/opt-1.3b"), student_memory("hub/opt-1.3b", USUAL)
    assert all_[:3] == (4 * n, 4 * n, 8 * n)
    assert student_memory("hub/opt-1.3b", Recipe(weight_dtype="bfloat16"))[:3] == (2 * n, 2 * n, 4 * n)
    assert student_memory("hub/opt-1.3b", Recipe(weight_dtype="bfloat16"), gpu=False)[:3] == all_[:3]
    assert student_memory("hub/opt-1.3b", Recipe(lora_rank=16)).total < all_.total - 11 * n
    few, many = (student_memory("hub/opt-1.3b", USUAL, n_tok).activations for n_tok in (100, 1000))
    assert many == 10 * few and student_memory("recorded:somebody", USUAL) is None
    once, twice = (memory_of(Shape(24, 2048, 8192, 50_000), 1000, r, 0, 0) for r in (USUAL, Recipe(gradient_checkpointing=True)))
    assert twice.activations < once.activations / 3


def test_the_room_of_a_container_is_its_limit(tmp_path, monkeypatch):
    whole = room_of("cpu")
    for told, want in (("1000000\n", 1_000_000), ("max\n", whole), (str(whole * 9), None)):
        (tmp_path / "max").write_text(told)
        monkeypatch.setattr(memory, "_LIMIT", tmp_path / "max")
        assert room_of("cpu") == want if want else room_of("cpu") >= whole
    assert room_of("mps") is None


def test_a_study_names_its_largest_student():
    base = base_of("arith", "pocket/s", {"recipe.batch": 8})
    some = vary(base, student=["hub/gpt2", "hub/opt-1.3b"], seed=[0, 1])
    assert largest_memory(some).startswith("hub/opt-1.3b: about ") and "800 tokens at once" in largest_memory(some)
    assert largest_memory(vary(base, method=["zero_shot_cot"])) is None and "more than" not in largest_memory(some)
    wide = vary(base, student=["hub/opt-1.3b"], **{"recipe.batch": [4096]})
    assert f"more than {GPU.name} has ({GPU.room // 10**9} GB)" in largest_memory(wide)
