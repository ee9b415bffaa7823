import json

from awqbench.formats.summary import inspect_checkpoint
from awqbench.printing import print_checkpoint, print_comparison
from awqbench.record.schema import Comparison, Difference


def test_a_quantized_checkpoint(capsys):
    """What looks broken stands before everything else but the name."""
    found = {
        "architecture": "LlamaForCausalLM", "format": "autoawq", "quantized": True, "bits_per_weight": 4.625,
        "schemes": [
            {"bits": 4, "codes_bits": 3, "group_size": -1, "symmetric": False, "linears": 2, "weights": 1024},
            {"type": "Q8_0", "bits": 8, "codes_bits": 8, "group_size": 32, "symmetric": True, "linears": 1,
             "weights": 8},
        ],
        "not_quantized": [{"name": f"model.layers.{index}.up", "place": "block"} for index in range(5)],
        "bytes": {"codes": 2048, "other": 0}, "total_bytes": 2048, "parameters": 4096,
        "findings": [
            {"linear": "a.b", "what": "scales are zero", "count": 1, "of": 8},
            {"linear": "a.c", "what": "scales are zero", "count": 2, "of": 8},
            {"linear": "", "what": "layers without tensors, first 2", "count": 1, "of": 4},
        ],
        "recipe": {"recipe": {"method": "rtn", "search": None}, "calibration": None},
    }  # fmt: skip
    print_checkpoint(found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "LlamaForCausalLM, autoawq"
    assert lines[1] == "looks broken: scales are zero (3 of 16 there): 2 tensors, first a.b"
    assert lines[2] == "looks broken: layers without tensors, first 2 (1 of 4 there): the checkpoint"
    assert lines[4].split() == ["2", "4", "3", "bits", "per", "channel", "asymmetric", "1,024"]
    assert lines[5].split() == ["1", "Q8_0", "8", "bits", "32", "symmetric", "8"]
    text = "\n".join(lines)
    assert (
        "not quantized, linears of blocks: model.layers.0.up, model.layers.1.up, model.layers.2.up and 2 more" in text
    )
    assert "4,096 parameters, 2.0 kB: codes 2.0 kB" in text
    assert "recipe: method rtn" in text


def test_an_unquantized_and_an_unknown_one(tiny_llama, capsys):
    found = inspect_checkpoint(tiny_llama)
    print_checkpoint(found)
    said = capsys.readouterr().out
    assert "LlamaForCausalLM, safetensors: not quantized" in said
    assert "looks broken" not in said
    print_checkpoint(json.loads(json.dumps(found | {"quantized": True, "format": "bitsandbytes"})))
    assert "a bitsandbytes checkpoint are not looked into" in capsys.readouterr().out


def test_figures_of_a_comparison_are_never_cut(capsys, monkeypatch):
    """A small one that loses its exponent is another figure; into a file or a pipe, names are whole as well."""
    metric = "divergence/pydoc-topics[50%:]@128+4/prefill/log-ppl-ratio"
    row = Difference(
        suite="divergence", metric=metric, protocol="invented", unit="nats per token", higher_is_better=False,
        pairing="to-reference", baseline="rtn in [red]", candidate="awq", role="candidate", baseline_value=None,
        candidate_value=-0.003492, delta=-7.391e-05, delta_unit="nats per token", ci_low=-0.04804, ci_high=0.164,
        p=5.5e-07, n=1234, mde=0.0641, noise=0.0, noise_reach=1.5e09,
    )  # fmt: skip
    figures = ["-0.003492", "-7.39e-05", "-0.048 .. +0.164", "5.5e-07", "1234", "+0.0641", "±1.5e+09"]
    print_comparison(Comparison(reference="reference", noise_floor=[], differences=[row]))
    line = capsys.readouterr().out.splitlines()[1]
    assert " ".join(line.split()) == " ".join([metric, "rtn in [red]", "awq", *figures])
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    print_comparison(Comparison(reference="reference", noise_floor=[], differences=[row]))
    said = capsys.readouterr().out
    assert [figure for figure in figures if figure not in said] == []
