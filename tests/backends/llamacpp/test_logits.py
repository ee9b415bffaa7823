import numpy as np
import pytest

from awqbench.backends.llamacpp import logits as llamacpp_logits
from awqbench.backends.llamacpp.logits import log_softmax, score_rows


@pytest.fixture(params=[1 << 19, 1000])
def logits(request, monkeypatch):
    """Rows of a large vocabulary, taken whole and a row at a time."""
    monkeypatch.setattr(llamacpp_logits, "_AT_ONCE", request.param)
    return (np.random.default_rng(0).standard_normal((7, 50_000)) * 4 + 30).astype(np.float32)


def exact(logits):
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def test_float32_is_enough_and_unbiased(logits):
    found = log_softmax(logits)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact(logits), atol=4e-6)
    assert abs(np.exp(found.astype(np.float64)).sum(1) - 1).max() < 1e-6
    assert not np.shares_memory(found, logits)


def test_scores_are_gathered_log_probabilities(logits):
    targets = np.array([0, 49_999, 3, 3, 17, 40_000, 12], np.int32)
    found = score_rows(logits, targets)
    np.testing.assert_allclose(found.logprobs, exact(logits)[np.arange(7), targets], atol=4e-6)
    np.testing.assert_array_equal(found.argmax, logits.argmax(1))


def test_extremes_stay_finite():
    rows = np.array([[1e4, -1e4, 0.0], [-1e30, 0.0, -1e30]], np.float32)
    assert np.isfinite(log_softmax(rows)).all()
    assert log_softmax(rows)[1, 1] == 0.0
