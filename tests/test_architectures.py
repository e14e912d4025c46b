"Tiny random models of many classes: drawn as `generate` writes, scored by one plain pass, trained as single lines, saved and read again."
import numpy as np
import pytest
import torch
import transformers as T
from tokenizers import Tokenizer, models as kinds, pre_tokenizers, processors

from cotstudy import sampling
from cotstudy.decoding import Decoding, Request
from cotstudy.models import load
from cotstudy.sampling import LM, logprobs, most_tok, steady, way_of
from cotstudy.students import Example, Recipe, backward, choose_nll, padded_nll, read_record, shared_nll, single_nll, tokenise, train

pytestmark = pytest.mark.usefixtures("one_thread")
V = 61  # the networks have a few tokens more: a vocabulary padded beyond its tokenizer
SIZE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=160)
WIDE = dict(SIZE, intermediate_size=48, num_key_value_heads=2)
IDS = dict(vocab_size=V + 3, pad_token_id=0, eos_token_id=1, bos_token_id=2)
SEQ = dict(IDS, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48,
           decoder_ffn_dim=48, max_position_embeddings=160, decoder_start_token_id=1)
T5 = dict(IDS, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)
LONG = dict(rope_type="longrope", rope_theta=10000.0, short_factor=[1.0] * 4, long_factor=[3.0, 5.0, 6.0, 9.0],
            original_max_position_embeddings=64, partial_rotary_factor=1.0)
MADE = {  # class, configuration, how it is drawn, how it is trained
    "gpt2": (T.GPT2LMHeadModel, lambda: T.GPT2Config(**IDS, n_embd=32, n_layer=2, n_head=4, n_positions=160), "shared", "shared_nll"),
    "phi": (T.PhiForCausalLM, lambda: T.PhiConfig(**IDS, **SIZE, intermediate_size=48), "shared", "shared_nll"),  # a bias in its head
    "gemma": (T.GemmaForCausalLM, lambda: T.GemmaConfig(**IDS, **WIDE, head_dim=16), "shared", "shared_nll"),  # tied
    "mixtral": (T.MixtralForCausalLM, lambda: T.MixtralConfig(**IDS, **WIDE, num_local_experts=4), "shared", "shared_nll"),
    "mistral": (T.MistralForCausalLM, lambda: T.MistralConfig(**IDS, **WIDE, sliding_window=9), "padded", "padded_nll"),
    "gpt_neo": (T.GPTNeoForCausalLM, lambda: T.GPTNeoConfig(**IDS, hidden_size=32, num_layers=2, attention_types=[[["global", "local"], 1]],
                num_heads=4, window_size=9, max_position_embeddings=160), "padded", "padded_nll"),
    "bloom": (T.BloomForCausalLM, lambda: T.BloomConfig(**IDS, hidden_size=32, n_layer=2, n_head=4), "padded", "padded_nll"),
    "falcon": (T.FalconForCausalLM, lambda: T.FalconConfig(**IDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=True,
               multi_query=False), "padded", "padded_nll"),
    "mpt": (T.MptForCausalLM, lambda: T.MptConfig(**IDS, d_model=32, n_layers=2, n_heads=4, max_seq_len=160), "padded", "padded_nll"),
    "xglm": (T.XGLMForCausalLM, lambda: T.XGLMConfig(**IDS, d_model=32, ffn_dim=48, num_layers=2, attention_heads=4,
             max_position_embeddings=160, decoder_start_token_id=2), "padded", "padded_nll"),
    "mamba": (T.MambaForCausalLM, lambda: T.MambaConfig(**IDS, hidden_size=32, num_hidden_layers=2, state_size=4), "level", "padded_nll"),
    "falcon_h1": (T.FalconH1ForCausalLM, lambda: T.FalconH1Config(**IDS, **WIDE, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8,
                  mamba_n_groups=1, mamba_d_state=4, mamba_chunk_size=16), "padded", "padded_nll"),
    "rwkv": (T.RwkvForCausalLM, lambda: T.RwkvConfig(**IDS, hidden_size=32, num_hidden_layers=2, attention_hidden_size=32,
             context_length=160), "single", "padded_nll"),
    "griffin": (T.RecurrentGemmaForCausalLM, lambda: T.RecurrentGemmaConfig(**IDS, **dict(WIDE, num_key_value_heads=1), lru_width=32,
                attention_window_size=9, block_types=["recurrent", "attention"]), "whole", "padded_nll"),
    "phi3_long": (T.Phi3ForCausalLM, lambda: T.Phi3Config(**IDS, **WIDE, original_max_position_embeddings=64, rope_parameters=LONG),
                  "whole", "single_nll"),
    "t5": (T.T5ForConditionalGeneration, lambda: T.T5Config(**T5), "padded", "encoded_nll"),
    "bart": (T.BartForConditionalGeneration, lambda: T.BartConfig(**SEQ, forced_eos_token_id=1), "padded", "encoded_nll"),
    "mbart": (T.MBartForConditionalGeneration, lambda: T.MBartConfig(**SEQ), "padded", "encoded_nll"),  # with a forced first token
    "pegasus": (T.PegasusForConditionalGeneration, lambda: T.PegasusConfig(**SEQ), "padded", "encoded_nll"),
}


def words(last=False):
    t = Tokenizer(kinds.WordLevel({"<pad>": 0, "<eos>": 1, "<unk>": 2} | {f"w{i}": i for i in range(3, V)}, unk_token="<unk>"))
    t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if last: t.post_processor = processors.TemplateProcessing("$A <eos>", special_tokens=[("<eos>", 1)])
    return T.PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def shaken(net):
    "Random weights, all of them large enough to matter, those of convolutions too."
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for k, p in net.named_parameters():
            if p.dim() > 1: p.copy_(torch.randn(p.shape, generator=g) * (0.5 if "conv" in k else 0.15))
            elif "bias" in k: p.copy_(torch.randn(p.shape, generator=g) * 0.1)
    net.tie_weights()
    return net.eval()


def made(name: str) -> LM:
    torch.manual_seed(0)
    net = shaken(MADE[name][0](MADE[name][1]()))
    if name == "mbart": net.generation_config.forced_bos_token_id = 7
    return LM(net, words(net.config.is_encoder_decoder), name, name)


@pytest.fixture(scope="module", params=list(MADE))
def lm(request): return made(request.param)


def text(n, start=0): return " ".join(f"w{3 + (start + 7 * i + i * i) % (V - 3)}" for i in range(n))


PROMPTS = [text(3), text(41, 5), text(1, 9), text(14, 2)]


def ask(lm, prompts, decoding, draws=(0,)):
    return {(c.prompt, c.draw_index): c for part in lm.complete([Request(p, draws) for p in prompts], decoding) for c in part}


def plain(lm, head, ids):
    "Log-probabilities from one pass over one unpadded sequence, nothing of ours."
    with torch.no_grad():
        if lm.kind == "decoder": logits = lm.net(input_ids=torch.tensor([[*head, *ids]])).logits[0, len(head) - 1: -1]
        else: logits = lm.net(input_ids=torch.tensor([head]), decoder_input_ids=torch.tensor([[lm.start_id, *ids[:-1]]])).logits[0]
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0].numpy()


def test_greedy_is_what_generate_writes(lm):
    got = ask(lm, PROMPTS, Decoding(max_tok=20))
    for p in PROMPTS:
        x = torch.tensor([lm.prompt_ids(p)])
        out = lm.net.generate(x, attention_mask=torch.ones_like(x), do_sample=False, max_new_tokens=20, pad_token_id=0)[0]
        assert got[p, 0].token_ids.tolist() == out[1 if lm.kind == "encoder_decoder" else x.shape[1]:].tolist(), p


def test_log_probabilities_are_those_of_one_plain_pass(lm):
    got = ask(lm, PROMPTS, Decoding(temperature=1.0, max_tok=18), (0, 1))
    for (p, _), c in got.items():
        ids = c.token_ids.tolist()
        np.testing.assert_allclose(c.logprobs, plain(lm, lm.prompt_ids(p), ids), atol=1e-3)
        np.testing.assert_allclose(c.logprobs, logprobs(lm, p, [ids])[0], atol=1e-3)


def test_the_way_taken_is_the_one_expected(lm):
    ids = [lm.prompt_ids(p) for p in PROMPTS]
    n_tok = 80 if lm.name == "phi3_long" else 60  # long-rope switches at 64
    assert way_of(lm, max(ids, key=len), min(ids, key=len), n_tok) == MADE[lm.name][2]


def test_slots_say_the_same_or_are_refused(lm):
    "The way of a GPU, its step computed here without a graph."
    ids = sorted({tuple(lm.prompt_ids(p)) for p in PROMPTS}, key=len, reverse=True)
    if not steady(lm, ids[0], 80): pytest.skip('its scale changes with length: always read as a whole')
    try: right = sampling._agrees(lm, sampling._slotted, ids[:3])
    except Exception: right = False  # whatever a class says that was not made for it: the next way is taken
    assert right == (MADE[lm.name][2] == "shared")


def test_slots_are_refilled_and_stay_themselves(lm):
    if MADE[lm.name][2] != "shared": pytest.skip("no slots for this class")
    asked, how = [Request(p, tuple(range(3))) for p in PROMPTS], Decoding(temperature=1.0, max_tok=18)
    ids = {p: tuple(lm.prompt_ids(p)) for p in PROMPTS}
    def drawn(way, rows):
        found = [d for part in way(lm, sampling._groups(lm, asked, ids, how), how, rows) for d in part]
        return {(rs[0].prompt, i): (tuple(t), text, finish) for (i, rs), t, _, text, finish in found}
    assert drawn(sampling._slotted, 12) == drawn(sampling._slotted, 5) == drawn(sampling._slotted, 1) == drawn(sampling._shared, 12)


def examples(many: bool):
    "Different lengths, one of them longer than every window; the longest is beyond the switch of long-rope."
    n = [1, 4, 2, 3, 1, 2] if many else [1] * 6
    return [Example(f"q{i}", text(k, i), tuple(text(5 + 3 * j, i + j) for j in range(n[i]))) for i, k in enumerate((4, 9, 30, 2, 70, 12))]


def gradient(lm): return {k: p.grad.clone() for k, p in lm.net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("many", [False, True])
def test_the_gradient_is_that_of_single_lines(lm, many):
    rows, _ = tokenise(lm, examples(many), Recipe(), eos=True)
    lm.net.zero_grad()
    for r in rows:
        for c in r.completions:
            if lm.kind == "decoder":
                logits = lm.net(input_ids=torch.tensor([r.prompt + c]), use_cache=False).logits[0, len(r.prompt) - 1: -1]
            else:
                read = torch.tensor([[lm.start_id, *c[:-1]]])
                logits = lm.net(input_ids=torch.tensor([r.prompt]), decoder_input_ids=read, use_cache=False).logits[0]
            torch.nn.functional.cross_entropy(logits, torch.tensor(c), reduction="sum").backward()
    want, n = gradient(lm), sum(len(c) for r in rows for c in r.completions)
    nll = choose_nll(lm, rows)
    assert all(p.grad is None for p in lm.net.parameters())
    backward(lm, nll, rows, 2048)
    off = sum(((p.grad if p.grad is not None else 0) * n - want.get(k, 0)).norm() ** 2 for k, p in lm.net.named_parameters() if k in want)
    assert nll.__name__ == MADE[lm.name][3]
    assert off ** 0.5 < 1e-4 * sum(g.norm() ** 2 for g in want.values()) ** 0.5
    lm.net.zero_grad()


@pytest.mark.parametrize("name", list(MADE))
def test_a_trained_student_is_read_as_it_was_saved(name, tmp_path):
    lm = made(name)
    folder = train(lm, examples(True), Recipe(steps=2, batch=4, lr=1e-3), tmp_path / "s", eos=True)
    again, tails = load(folder), [lm.completion_ids(text(6), eos=True), lm.completion_ids(text(9, 4))]
    assert read_record(folder)["form"] == MADE[name][3] and again.kind == lm.kind
    for a, b in zip(logprobs(lm, PROMPTS[3], tails), logprobs(again, PROMPTS[3], tails)): np.testing.assert_allclose(a, b, atol=1e-5)
    assert again.net.generation_config.eos_token_id in (1, [1])


def test_a_draw_may_not_cross_the_switch_of_long_rope():
    "Below it and above it draws are those of one plain pass, whoever stands beside them; across it they are refused."
    lm, short, long = made("phi3_long"), text(58, 3), text(70, 5)  # 58 and 70 tokens; the switch is behind the 64th
    with pytest.raises(ValueError, match="more than 64 tokens.*a prompt of 58 tokens with 7 more.*take max_tok=6 or less"):
        ask(lm, [PROMPTS[0], short], Decoding(max_tok=7))
    with pytest.raises(ValueError, match="with 30 more"): ask(lm, [text(50, 3)], Decoding(max_tok=30))
    hot = Decoding(temperature=1.0, max_tok=6)
    alone = {**ask(lm, [short], hot, (0, 1)), **ask(lm, [long], hot, (0, 1))}
    together = ask(lm, [short, long, PROMPTS[0]], hot, (0, 1))
    for (p, i), c in alone.items():
        ids = c.token_ids.tolist()
        assert together[p, i].token_ids.tolist() == ids
        for logp in (c.logprobs, together[p, i].logprobs, logprobs(lm, p, [ids])[0]):
            np.testing.assert_allclose(logp, plain(lm, lm.prompt_ids(p), ids), atol=1e-4)
    with pytest.raises(ValueError, match="more than 64 tokens"): logprobs(lm, short, [text(4), text(9)])
    assert len(logprobs(lm, short, [text(4), text(2)])) == 2


@pytest.mark.parametrize("name", ["bert", "xlnet"])
def test_a_model_that_reads_ahead_is_refused(name):
    if name == "bert": net = T.BertLMHeadModel(T.BertConfig(**IDS, **SIZE, intermediate_size=48))
    else: net = T.XLNetLMHeadModel(T.XLNetConfig(vocab_size=V, d_model=32, n_layer=2, n_head=4, d_inner=48))
    lm = LM(shaken(net), words(), name, name)
    with pytest.raises(ValueError, match="reads ahead"): ask(lm, PROMPTS, Decoding(max_tok=4))
    with pytest.raises(ValueError, match="reads ahead"): choose_nll(lm, tokenise(lm, examples(False), Recipe(), True)[0])


def test_positions_of_encoder_and_decoder_count_apart():
    lm = made("bart")
    assert most_tok(lm) == 160 and len(ask(lm, [text(150)], Decoding(max_tok=100))) == 1
    with pytest.raises(ValueError, match="161 tokens, 'bart' has 160 positions"): ask(lm, [text(160)], Decoding(max_tok=10))
    with pytest.raises(ValueError, match="161 tokens, 'bart' has 160 positions"): ask(lm, [text(10)], Decoding(max_tok=161))
    long = Example("long", text(9), (text(170),))
    with pytest.raises(ValueError, match="'long' have 171 tokens"): tokenise(lm, [long], Recipe(), eos=True)


def test_the_first_token_that_mbart_forces_is_trained_and_drawn():
    lm = made("mbart")
    assert lm.completion_ids(text(2))[0] == 7
    assert all(c.token_ids[0] == 7 for c in ask(lm, PROMPTS, Decoding(temperature=1.0, max_tok=5), (0, 1, 2)).values())


def test_a_forced_eos_is_not_an_end():
    c = ask(made("bart"), PROMPTS[:1], Decoding(max_tok=6))[PROMPTS[0], 0]
    assert c.token_ids[-1] == 1 and (c.finish == "length" or 1 in c.token_ids[:-1].tolist() or c.n_tok < 6)


def test_rows_that_an_architecture_cannot_share_are_refused_not_mixed():
    lm = made("gpt_neo")
    rows, _ = tokenise(lm, examples(False)[:3], Recipe(), eos=True)
    with pytest.raises(ValueError, match="of its own"): shared_nll(lm.net, rows)
    with torch.no_grad(): assert padded_nll(lm.net, rows).item() == pytest.approx(single_nll(lm.net, rows).item(), rel=1e-5)
