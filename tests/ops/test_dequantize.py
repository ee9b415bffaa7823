import torch

from awqbench.ops import dequantize
from awqbench.ops.layout import pack_rows


def test_rows_are_those_of_the_quantized_tensor(make_quantized):
    for group in (4, 32):
        quantized = make_quantized(8, 96, group)
        packed = pack_rows(quantized.codes, group)
        rows = dequantize.dequantize_rows(packed, quantized.scales, quantized.zeros, 96, group)
        assert torch.equal(rows, quantized.dequantize())


def test_the_scratch_is_bounded_and_chunks_change_nothing(make_quantized, monkeypatch):
    quantized, x = make_quantized(40, 64, 32), torch.randn(3, 64)
    arguments = (x, pack_rows(quantized.codes, 32), quantized.scales, quantized.zeros, torch.randn(40), 32)
    whole = dequantize.linear(*arguments)
    seen = []
    real = dequantize.dequantize_rows
    monkeypatch.setattr(dequantize, "dequantize_rows", lambda *a: seen.append(len(a[0])) or real(*a))
    monkeypatch.setattr(dequantize, "SCRATCH_BYTES", 4 * 64 * 12)
    torch.testing.assert_close(dequantize.linear(*arguments), whole)
    assert seen == [12, 12, 12, 4]
