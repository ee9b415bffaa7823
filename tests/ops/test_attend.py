"""The attention of a decoding step: its reference against transformers, and as an operator."""

import pytest
import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensorMode

from awqbench.ops.attend import attend, reference
from awqbench.runtime.static import Slot

BASE = {"vocab_size": 101, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128}  # fmt: skip
FAMILIES = {
    "llama": ("LlamaConfig", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 24}),  # norms of heads
    "gemma2": ("Gemma2Config", {"head_dim": 16, "attn_logit_softcapping": 5.0, "sliding_window": 8}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 16, "sliding_window": 8,
                                    "layer_types": ["sliding_attention", "full_attention"]}),
    "stablelm": ("StableLmConfig", {"partial_rotary_factor": 0.25}),
}  # fmt: skip


def made(family, dtype):
    name, settings = FAMILIES[family]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**{**BASE, **settings}, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.to(dtype)


class Seen:
    """What an attention module was given, and what went into its last product."""

    def __init__(self, module):
        self.hooks = [
            module.register_forward_pre_hook(self._before, with_kwargs=True),
            module.o_proj.register_forward_pre_hook(self._last),
        ]

    def _before(self, module, given, named):
        self.x = named["hidden_states"] if "hidden_states" in named else given[0]
        self.cosines, self.sines = named["position_embeddings"]

    def _last(self, module, given):
        self.result = given[0][:, 0]


def head_norm(module):
    if module is None:
        return None
    return module.weight.float() + (1.0 if "Gemma" in type(module).__name__ else 0.0)


def rows_of(table, positions, capacity):
    """What transformers gives for these positions, among rows that must not be read."""
    rows = torch.full((capacity, table.shape[-1]), torch.nan)
    rows[positions] = table[:, 0].float()
    return rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "padding"),
    # The runtime pads no model with windows.
    [*((family, None) for family in FAMILIES), *((family, [0, 5]) for family in FAMILIES if "gemma" not in family)],
)
@torch.no_grad()
def test_a_step_of_each_layer_is_transformers(family, padding, dtype):
    model, capacity, prompt, batch = made(family, dtype), 24, 13, 2
    slot = Slot(model, torch.device("cpu"), batch, capacity, padded=padding is not None)
    slot.reset()
    if padding:
        slot.padding.copy_(torch.tensor(padding))
    slot.prefill(torch.randint(101, (batch, prompt)), 0)
    length = slot.length.clone()
    before = [(layer.keys.clone(), layer.values.clone()) for layer in slot.cache.layers]
    modules = [layer.self_attn for layer in model.model.layers]
    seen = [Seen(module) for module in modules]
    slot.ids.copy_(torch.randint(101, (batch, 1)))
    slot.advance()
    for module, found, cache, (keys, values) in zip(modules, seen, slot.cache.layers, before, strict=True):
        x = found.x[:, 0]
        qkv = torch.cat([module.q_proj(x), module.k_proj(x), module.v_proj(x)], dim=-1)
        for each in (keys, values):
            each[:, :, prompt:] = torch.nan
            for row, count in enumerate(padding or []):
                each[row, :, :count] = torch.nan
        positions = prompt - torch.tensor(padding or [0, 0])
        tables = [rows_of(table.expand(batch, -1, -1), positions, capacity) for table in (found.cosines, found.sines)]
        q_norm, k_norm = (head_norm(getattr(module, name, None)) for name in ("q_norm", "k_norm"))
        result = attend(
            qkv, *tables, keys, values, length, padding=slot.padding, query_norm=q_norm, key_norm=k_norm,
            eps=model.config.rms_norm_eps if q_norm is not None else 0.0, scale=module.scaling,
            cap=getattr(module, "attn_logit_softcapping", None) or 0.0,
            window=getattr(module, "sliding_window", None) or 0,
        )  # fmt: skip
        # transformers rounds norm, each product and each sum of the rotation to 16 bits, and the weights of values.
        near = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 3e-2, "atol": 3e-2}
        torch.testing.assert_close(result, found.result, **near)
        torch.testing.assert_close(keys[:, :, prompt], cache.keys[:, :, prompt], **near)
        torch.testing.assert_close(values[:, :, prompt], cache.values[:, :, prompt], rtol=0, atol=0)
        assert keys[:, :, prompt + 1 :].isnan().all()


def arguments(dtype=torch.float32, batch=2, heads=4, key_heads=2, size=16, capacity=20, rotary=8, length=7):
    random = torch.Generator().manual_seed(size + heads)

    def numbers(*shape):
        return torch.randn(*shape, generator=random)

    return (
        numbers(batch, (heads + 2 * key_heads) * size).to(dtype), numbers(capacity, rotary), numbers(capacity, rotary),
        numbers(batch, key_heads, capacity, size).to(dtype), numbers(batch, key_heads, capacity, size).to(dtype),
        torch.tensor([length]),
    )  # fmt: skip


OPTIONS = [
    {"scale": 0.25},
    {"scale": 0.25, "padding": torch.tensor([0, 3]), "cap": 5.0, "window": 4, "eps": 1e-6,
     "query_norm": torch.rand(16) + 0.5, "key_norm": torch.rand(16) + 0.5},
]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "all"])
def test_opcheck(dtype, options):
    torch.library.opcheck(torch.ops.awqbench.attend.default, arguments(dtype), options)


def test_a_sequence_of_padding_sees_its_new_token():
    given = arguments(length=3)
    result = attend(*given, padding=torch.tensor([9, 3]), scale=1.0)
    new = given[0].view(2, -1, 16)[:, -2:]
    assert torch.equal(result.view(2, 2, 2, 16), new[:, :, None].expand(2, 2, 2, 16))


def test_compiles_and_captures_the_writes():
    given, again = arguments(), arguments()
    expected = reference(*given, scale=0.25)
    torch.testing.assert_close(torch.compile(attend, fullgraph=True, backend="aot_eager")(*again, scale=0.25), expected)
    torch.testing.assert_close(again[3:5], given[3:5])
    torch._dynamo.reset()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_fake_tensors_have_the_right_shape_on_any_device(device):
    with FakeTensorMode():
        given = [torch.empty(each.shape, dtype=each.dtype, device=device) for each in arguments(torch.bfloat16)]
        found = attend(*given, scale=1.0)
    assert (found.shape, found.dtype, found.device.type) == ((2, 64), torch.bfloat16, device)


def test_what_does_not_belong_together_is_refused():
    qkv, cosines, sines, keys, values, length = arguments()
    for wrong, says in [
        ((qkv[:, :-1], cosines, sines, keys, values, length), "does not belong"),
        ((qkv[:1], cosines, sines, keys, values, length), "does not belong"),
        ((qkv, cosines[:9], sines[:9], keys, values, length), r"\[20 or more, an even number"),
        ((qkv, cosines[:, :7], sines[:, :7], keys, values, length), "an even number up to 16"),
        ((qkv, cosines, sines, keys.half(), values, length), "of qkv's"),
        ((qkv, cosines, sines, keys.transpose(1, 2).contiguous().transpose(1, 2), values, length), "contiguous"),
        ((qkv, cosines, sines, keys, values, length.int()), "int64"),
        ((qkv, cosines.double(), sines, keys, values, length), "float32"),
        (arguments(size=12), "heads of 12"),
        (arguments(batch=65, capacity=8), "65 sequences"),
    ]:
        with pytest.raises(ValueError, match=says):
            attend(*wrong, scale=1.0)
    with pytest.raises(ValueError, match="head norms"):
        attend(*arguments(), scale=1.0, query_norm=torch.ones(8))
