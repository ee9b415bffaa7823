"""llama.cpp in process gives what transformers gives in float32, by every road."""

import json

import gguf
import numpy as np
import pytest
import torch

from awqbench.backends.llamacpp import backend as llamacpp
from awqbench.backends.llamacpp import options as llamacpp_options
from awqbench.backends.llamacpp.backend import LlamaCppBackend
from awqbench.errors import NotApplicable, UserError
from awqbench.formats.gguf.export import export_gguf

pytest.importorskip("xllamacpp", reason="xllamacpp is not installed: llama.cpp cannot be run")
# float32 everywhere: what remains is the order of the sums.
EXACT = {"kv_type": "f32"}
TOLERANCE = 2e-4


@pytest.fixture(scope="module")
def files(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    for kind in ("f32", "f16"):
        export_gguf(tiny_llama, folder / f"{kind}.gguf", kind=kind)
    return folder


@pytest.fixture(scope="module")
def reference(tiny_llama):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32)

    def logprobs(ids):
        with torch.no_grad():
            return model(torch.tensor([ids])).logits[0].double().log_softmax(-1).numpy()

    return logprobs


@pytest.fixture
def start():
    """Load a backend; all are unloaded at the end."""
    started = []

    def load(file, settings=EXACT, **options):
        backend = LlamaCppBackend()
        started.append(backend)
        described = backend.load({"weights": str(file), "device": "cpu", "threads": 1, "settings": settings, **options})
        return backend, described

    yield load
    for backend in started:
        backend.unload()
        backend.unload()  # twice does no harm


def tokens(count, seed=0):
    return np.random.default_rng(seed).integers(3, 259, count).tolist()


def test_what_it_says_of_itself(files, start):
    _, said = start(files / "f16.gguf", {}, batch_size=4)
    assert (said["vocab_size"], said["max_positions"], said["dtype"], said["device"]) == (259, 2048, "float16", "cpu")
    assert said["capabilities"] == [
        "score",
        "logprobs",
        "decode-logprobs",
        "generate",
        "time",
        "stop-texts",
        "tokenize",
    ]
    assert said["weight_bytes"] == (64 * 259 + 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128)) * 2 + 5 * 64 * 4
    assert said["engine"] == "llama.cpp"
    assert "xllamacpp 20" in said["engine_version"]
    assert (said["file_type"], said["architecture"], said["kv_type"]) == ("F16", "llama", "f16")
    assert said["flash_attention"] in ("enabled", "disabled")
    assert said["kernel"].startswith("ggml (CPU ")
    json.dumps(said)
    assert start(files / "f32.gguf")[1]["dtype"] == "float32"


@pytest.mark.parametrize("path", ["prefill", "decode"])
@pytest.mark.parametrize("first", [1, 40])
def test_log_probabilities_of_the_whole_vocabulary(files, start, reference, path, first):
    backend, _ = start(files / "f32.gguf", {**EXACT, "batch_tokens": 32})  # a prompt in several passes
    ids = tokens(100)
    chunks = list(backend.logprobs(ids, first, path))
    assert all(chunk.dtype == np.float32 for chunk in chunks)
    found = np.concatenate(chunks)
    np.testing.assert_allclose(found, reference(ids)[first - 1 : -1], atol=TOLERANCE)
    again = np.concatenate(list(backend.logprobs(ids, first, path)))
    np.testing.assert_array_equal(again, found)


def test_half_precision_stays_close(files, start, reference):
    backend, _ = start(files / "f16.gguf", {})
    ids = tokens(200)
    for path in ("prefill", "decode"):
        found, wanted = np.concatenate(list(backend.logprobs(ids, 1, path))), reference(ids)[:-1]
        assert (np.exp(wanted) * (wanted - found)).sum(1).mean() < 1e-4
        assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.96


def test_a_chunk_is_of_bounded_size(files, start, monkeypatch):
    monkeypatch.setattr(llamacpp, "CHUNK_NUMBERS", 259 * 10)
    backend, _ = start(files / "f32.gguf")
    for path in ("prefill", "decode"):
        sizes = [len(chunk) for chunk in backend.logprobs(tokens(55), 5, path)]
        assert (sum(sizes), max(sizes)) == (50, 10)


def test_a_large_vocabulary_makes_passes_smaller(files, start, monkeypatch):
    monkeypatch.setattr(llamacpp_options, "LOGIT_NUMBERS", 259 * 16)
    assert start(files / "f32.gguf")[1]["batch_tokens"] == 16


def cases():
    """Sequences long, short, alike but for the last token, and with nothing to score."""
    found = [tokens(length, seed) for seed, length in enumerate((90, 2, 30, 7, 64, 30, 12))]
    found += [[*found[2][:-1], last] for last in (5, 6, 7)]
    starts = [1, 1, 20, 7, 33, 30, 5, 29, 29, 3]
    return found, starts


@pytest.mark.parametrize(("batch_size", "batch_tokens"), [(32, 512), (1, 512), (3, 40)])
def test_scores_are_gathered_log_probabilities_however_batched(files, start, reference, batch_size, batch_tokens):
    backend, _ = start(files / "f32.gguf", {**EXACT, "batch_tokens": batch_tokens}, batch_size=batch_size)
    sequences, starts = cases()
    for order in (range(len(sequences)), reversed(range(len(sequences)))):
        order = list(order)
        scored = backend.score([sequences[i] for i in order], [starts[i] for i in order])
        for index, found in zip(order, scored, strict=True):
            ids, first = sequences[index], starts[index]
            wanted = reference(ids)[first - 1 : -1]
            np.testing.assert_allclose(found.logprobs, wanted[np.arange(len(wanted)), ids[first:]], atol=TOLERANCE)
            np.testing.assert_array_equal(found.argmax, wanted.argmax(1))


def test_sequences_that_differ_in_the_last_token_share_a_pass(files, start, monkeypatch):
    backend, _ = start(files / "f32.gguf")
    run = []
    decode = llamacpp.Context.decode

    def counted(self, *arguments):
        run.append(len(arguments[0]))
        return decode(self, *arguments)

    monkeypatch.setattr(llamacpp.Context, "decode", counted)
    stem = tokens(20)
    assert len(list(backend.score([[*stem, last] for last in range(3, 12)], [20] * 9))) == 9
    assert run == [20]
    assert list(backend.score([], [])) == []


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_greedy_continuations(files, start, reference, batch_size):
    backend, _ = start(files / "f32.gguf", batch_size=batch_size)
    prompts = [tokens(length, length) for length in (5, 17, 9)]
    wanted = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(8):
            ids.append(int(reference(ids)[-1].argmax()))
        wanted.append(ids[len(prompt) :])
    assert backend.generate(prompts, 8, []) == wanted
    stop = wanted[1][3]
    cut = [answer[: answer.index(stop)] if stop in answer else answer for answer in wanted]
    assert backend.generate(prompts, 8, [stop]) == cut
    assert backend.generate(prompts, 0, []) == [[], [], []]
    text = backend.model.text
    ending = text(wanted[2][3:5])
    ends = [next((n for n in range(1, 9) if ending in text(answer[:n])), 8) for answer in wanted]
    assert ends[2] <= 5
    assert backend.generate_until(prompts, 8, [], [ending]) == [a[:n] for a, n in zip(wanted, ends, strict=True)]


def test_a_timed_generation_has_a_gap_for_every_later_token(files, start):
    backend, _ = start(files / "f32.gguf")
    timing = backend.time([tokens(12, seed) for seed in range(3)], 6)
    assert timing.ttft_s > 0
    assert len(timing.gaps_s) == 5
    assert backend.time([tokens(4)], 1).gaps_s == []
    with pytest.raises(NotApplicable, match="at most 256 sequences"):
        backend.time([tokens(4)] * 257, 2)


def test_its_tokenizer_is_the_models(files, start, tiny_llama):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(tiny_llama)
    texts = ["", "Once upon a time, 1984.", "  é 漢字 \n\tx", "a</s>b<s>"]
    backend, _ = start(files / "f32.gguf")
    for special in (False, True):  # this tokenizer adds nothing
        assert backend.tokenize(texts, special) == [
            theirs(text, add_special_tokens=special)["input_ids"] for text in texts
        ]


def test_a_tokenizer_that_adds_a_bos(tiny_llama, tmp_path, start):
    """The ids that `special` adds are those of Hugging Face's tokenizer, and are left out without it."""
    import shutil

    from tokenizers import Tokenizer, processors
    from transformers import AutoTokenizer

    shutil.copytree(tiny_llama, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(str(tmp_path / "model" / "tokenizer.json"))
    export_gguf(tmp_path / "model", tmp_path / "x.gguf", kind="f16")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")
    backend, _ = start(tmp_path / "x.gguf")
    assert backend.tokenize(["ab"], True) == [theirs("ab")["input_ids"]]
    assert backend.tokenize(["ab"], True)[0] == [1, *backend.tokenize(["ab"], False)[0]]


def test_a_vocabulary_larger_than_the_tokenizers(tmp_path, start):
    from awqbench.sources.tiny import make_tiny

    make_tiny(tmp_path / "model", vocab_size=300, hidden_size=64, intermediate_size=64, num_hidden_layers=1)
    export_gguf(tmp_path / "model", tmp_path / "x.gguf", kind="f32")
    backend, said = start(tmp_path / "x.gguf")
    assert said["vocab_size"] == 300
    assert next(backend.logprobs([5, 299, 7], 1, "prefill")).shape == (2, 300)


def test_memory_does_not_pile_up(files, start):
    backend, _ = start(files / "f32.gguf")

    def work():
        for _ in backend.logprobs(tokens(300), 1, "prefill"):
            pass
        list(backend.score([tokens(200, seed) for seed in range(8)], [1] * 8))
        backend.generate([tokens(30)], 4, [])

    work()
    before = backend.memory()["host_now"]
    for _ in range(8):
        work()
    assert backend.memory()["host_now"] - before < 8 * 2**20  # eight rounds of two megabytes of logits each
    assert backend.memory()["host_peak"] >= before


def test_what_does_not_fit_the_context(files, start):
    backend, said = start(files / "f32.gguf", {**EXACT, "context": 64})
    assert said["max_positions"] == 64
    assert len(next(iter(backend.score([tokens(65)], [1]))).logprobs) == 64
    for call in (
        lambda: list(backend.score([tokens(9), tokens(66)], [1, 1])),
        lambda: list(backend.logprobs(tokens(66), 1, "prefill")),
        lambda: list(backend.logprobs(tokens(66), 1, "decode")),
        lambda: backend.generate([tokens(60)], 5, []),
        lambda: backend.time([tokens(60)], 5),
    ):
        with pytest.raises(UserError, match=r"6\d tokens does not fit: f32.gguf is run with at most 64"):
            call()


@pytest.mark.parametrize(
    ("settings", "device", "message"),
    [
        ({"kv_type": "int3"}, "cpu", "unknown kv_type 'int3'"),
        ({"flash_attention": "maybe"}, "cpu", "unknown flash_attention 'maybe' .allowed: auto, off, on"),
        ({"kv_type": "f32", "flash_attention": "on"}, "cpu", "kv_type f32 needs flash_attention off"),
        ({"batch_tokens": 0}, "cpu", "batch_tokens is 0 .allowed: whole numbers from 1"),
        ({"gpu_layers": "all"}, "cpu", "gpu_layers is 'all'"),
        ({"mmap": 1}, "cpu", "mmap is 1 .allowed: true, false"),
        ({"provider": "ollama"}, "cpu", "unknown provider of llama.cpp 'ollama'"),
        ({}, "tpu", "unknown device 'tpu'"),
    ],
)
def test_settings_that_do_not_exist(files, start, settings, device, message):
    with pytest.raises(UserError, match=message):
        start(files / "f32.gguf", settings, device=device)


def test_settings_that_do(files, start, reference):
    ids = tokens(80)
    for settings in (
        {"kv_type": "f16"},
        {"kv_type": "bf16", "flash_attention": True},
        {"mmap": False},
        {"flash_attention": "off"},
    ):
        backend, _ = start(files / "f32.gguf", settings, device="auto")
        found = np.concatenate(list(backend.logprobs(ids, 1, "prefill")))
        wanted = reference(ids)[:-1]
        assert (np.exp(wanted) * (wanted - found)).sum(1).mean() < 1e-3
    with pytest.raises(
        UserError, match="context of 32 x 512 tokens: K cache type q8_0 with block size 32 does not divide"
    ):
        start(files / "f32.gguf", {"kv_type": "q8_0"})


def test_files_that_are_no_model(files, start, tmp_path):
    (tmp_path / "text.gguf").write_text("not a model")
    (tmp_path / "cut.gguf").write_bytes((files / "f32.gguf").read_bytes()[:5000])
    writer = gguf.GGUFWriter(tmp_path / "strange.gguf", "nonesuch")
    writer.add_tensor("x", np.ones((32, 32), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    for name, message in (
        ("text.gguf", r"text.gguf is no GGUF file: it starts with b'not '"),
        ("cut.gguf", r"llama.cpp cannot load .*cut.gguf: \w"),
        ("strange.gguf", r"cannot load .*strange.gguf: unknown model architecture: 'nonesuch'"),
        ("none.gguf", r"cannot read .*none.gguf: No such file"),
        ("", r"is a folder: llama.cpp runs a GGUF file"),
    ):
        with pytest.raises(UserError, match=message):
            start(tmp_path / name)


@pytest.mark.demo
@pytest.mark.slow
def test_a_trained_model_as_it_comes(start):
    """A quantized file of somebody else's: it knows something, and decodes as it reads."""
    from awqbench.errors import BackendUnavailable
    from awqbench.sources.demo import demo_gguf

    try:
        file = demo_gguf()
    except BackendUnavailable as error:
        pytest.skip(str(error))
    backend, said = start(file, {})
    assert (said["file_type"], said["dtype"], said["vocab_size"]) == ("Q4_1", "int8", 49152)
    question, answer = backend.tokenize(["The capital of France is", " Paris"], special=False)
    assert backend.generate([question], 1, []) == [answer]
    ids = backend.tokenize(["It was the best of times, it was the worst of times, it was the age of wisdom"], False)[0]
    prefill, decode = (np.concatenate(list(backend.logprobs(ids, 4, path))) for path in ("prefill", "decode"))
    assert (np.exp(prefill) * (prefill - decode)).sum(1).mean() < 0.01
    (scored,) = backend.score([ids], [4])
    assert scored.nll / len(scored.logprobs) < 2.5


def test_both_providers_give_the_same(files, start):
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: one provider of llama.cpp only")
    ids = tokens(120)
    found = []
    for provider in ("xllamacpp", "llama-cpp-python"):
        backend, said = start(files / "f32.gguf", {**EXACT, "provider": provider})
        assert provider in said["engine_version"]
        found.append(np.concatenate([*backend.logprobs(ids, 1, "prefill"), *backend.logprobs(ids, 9, "decode")]))
    np.testing.assert_allclose(*found, atol=TOLERANCE)
