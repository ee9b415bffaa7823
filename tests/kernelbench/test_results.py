"""The record: there and back, merging, and what is never taken for a record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awqbench.errors import UserError
from awqbench.kernelbench.results import Measurement, Results, Session, by_problem, from_json, load, save

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)
MEASUREMENTS = st.builds(
    Measurement,
    contender=TEXT, n=st.integers(1, 99), k=st.just(128), group=st.sampled_from([32, 64]), m=st.integers(1, 99),
    dtype=st.sampled_from(["fp16", "bf16"]), mode=st.just("isolated"), status=st.sampled_from(["timed", "wrong"]),
    detail=TEXT, runs=st.lists(st.floats(0.1, 1e6), max_size=3).map(tuple), spread=st.floats(0, 1e3),
    error=st.none() | st.floats(0, 1), sm_clock_mhz=st.none() | st.floats(0, 3000), throttled=st.booleans(),
)  # fmt: skip
SESSIONS = st.builds(
    Session, id=TEXT, device=st.just("A GPU"), clock=TEXT, versions=st.dictionaries(TEXT, TEXT, max_size=2),
    ceilings=st.dictionaries(TEXT, st.none() | st.floats(0, 1e13), max_size=2), complete=st.booleans(),
    after=st.dictionaries(TEXT, st.lists(TEXT, max_size=2), max_size=2), command=TEXT,
    measurements=st.lists(MEASUREMENTS, max_size=3),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(SESSIONS, max_size=3))
def test_there_and_back(sessions: list[Session]) -> None:
    results = Results("A GPU")
    for session in sessions:
        results.merge(session)
    text = results.to_json()
    assert from_json(text) == results
    assert from_json(text).to_json() == text
    assert len({session.id for session in results.sessions}) == len(results.sessions)


def test_a_measurement_is_a_line() -> None:
    session = Session("2026-01-01T00:00:00Z", "A GPU", "events")
    session.measurements = [Measurement("ours", 8, 64, 32, m, "fp16", "isolated", "refused", "no") for m in (1, 2, 3)]
    results = Results("A GPU", [session])
    lines = results.to_json().splitlines()
    assert sum('"contender"' in line for line in lines) == 3
    assert json.loads(results.to_json())["schema"] == 1


def test_saving_adds_sessions_and_replaces_the_same_one(tmp_path: Path) -> None:
    path = tmp_path / "results" / "a-gpu.json"
    later = Session("2026-01-02", "A GPU", "events")
    save(path, later)
    save(path, Session("2026-01-01", "A GPU", "events"))
    save(path, replace(later, complete=True))
    found = load(path)
    assert [(session.id, session.complete) for session in found.sessions] == [
        ("2026-01-01", False),
        ("2026-01-02", True),
    ]
    assert [each.name for each in path.parent.iterdir()] == ["a-gpu.json"]
    with pytest.raises(ValueError, match="a session of CPU among those of A GPU"):
        save(path, Session("2026-01-03", "CPU", "loop"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a record"),
        ("[]", "not a record"),
        ("{}", "not a record"),
        ('{"schema": 1}', "not a record of kernel measurements: KeyError: 'device'"),
        ('{"schema": 1, "device": "X", "sessions": [{"measurements": [], "speed": 1}]}', "not a record.*'speed'"),
        ('{"schema": 9}', r"schema 9 \(allowed: 1\)"),
    ],
)
def test_other_files_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_json(text)


def test_only_the_same_problem_is_compared() -> None:
    ours = Measurement("ours", 8, 64, 32, 1, "fp16", "isolated", "timed", runs=(1.0,))
    changes: list[dict[str, object]] = [{}, {"m": 2}, {"group": 64}, {"dtype": "bf16"}, {"mode": "back-to-back"}]
    others = [replace(ours, contender="peer", **change) for change in changes]  # type: ignore[arg-type]
    grouped = by_problem([ours, *others])
    assert len(grouped) == 5
    assert list(grouped[ours.problem]) == ["ours", "peer"]
    assert replace(ours, status="wrong").series is None
