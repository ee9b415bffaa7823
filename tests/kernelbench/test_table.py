"""Comparisons and tables from a record made by hand, and what README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from awqbench.errors import UserError
from awqbench.kernelbench.compare import Best, averages, best_variants, compare
from awqbench.kernelbench.report import averages_lines, measurement_lines, variant_lines
from awqbench.kernelbench.results import Measurement, Results, Session
from awqbench.kernelbench.table import BEGIN, END, UNMEASURED, load_all, put, render
from awqbench.resources import content

ROOT = Path(__file__).parents[2]


def timed(contender: str, m: int, us: float, spread: float = 0.1, **more: object) -> Measurement:
    fields = {
        "n": 4096, "k": 4096, "group": 128, "dtype": "fp16", "mode": "back-to-back", "status": "timed",
        "runs": (us, us + 0.2, us + 0.1), "spread": spread, "error": 2e-4, **more,
    }  # fmt: skip
    return Measurement(contender=contender, m=m, **fields)  # type: ignore[arg-type]


def session() -> Session:
    made = Session(
        "2026-01-02T03:04:05Z", "A GPU", "CUDA graph, events", versions={"awqbench": "1", "torch": "2"},
        ceilings={"read": 3e12, "copy": 2.8e12, "matmul": 7e14, "nominal": 3.35e12},
        peers={"cublas": "", "marlin": "", "humming": "missing: not installed"},
    )  # fmt: skip
    made.measurements = [
        timed("ours", 1, 5.9), timed("cublas", 1, 11.9), timed("marlin", 1, 8.9), timed("ours/narrow", 1, 5.4),
        timed("ours", 16, 8.0), timed("marlin", 16, 7.9), timed("machete", 16, 0.0, status="wrong", runs=()),
        timed("marlin", 8, 7.0), timed("ours", 64, 9.0, mode="isolated"),
    ]  # fmt: skip
    return made


def test_comparison_by_hand() -> None:
    one, sixteen, isolated = compare(session())
    assert one.us == pytest.approx(6.0)
    assert one.ratios == {"cublas": pytest.approx(2.0), "marlin": pytest.approx(1.5)}
    assert one.claims == {"cublas": "faster", "marlin": "faster"}
    assert one.share == pytest.approx(2.911 / 6.0, abs=1e-3)
    assert one.nominal_share == pytest.approx(one.share * 3 / 3.35)
    assert one.best_peer == "marlin"
    assert sixteen.claims == {"marlin": "no claim"}
    assert isolated.best_peer is None


def test_averages_by_hand() -> None:
    chosen = [each for each in compare(session()) if each.mode == "back-to-back"]
    found = {each.peer: each for each in averages(chosen)}
    marlin = found["marlin"]
    assert marlin.mean == pytest.approx((1.5 * 8.0 / 8.1) ** 0.5)
    assert (marlin.worst, marlin.worst_at) == (pytest.approx(8.0 / 8.1), "4096x4096 M=16")
    assert (marlin.problems, marlin.faster, marlin.bucket) == (2, 1, "1-16")
    assert found["cublas"].problems == 1
    assert any("1.22 geometric mean" in line for line in averages_lines(averages(chosen)))


def test_a_throttled_device_makes_no_claims() -> None:
    made = session()
    made.measurements = [timed("ours", 1, 5.0), timed("marlin", 1, 9.0, throttled=True)]
    assert compare(made)[0].claims == {"marlin": "throttled"}


def test_best_variants() -> None:
    found = best_variants(session().measurements)
    assert found[timed("ours", 1, 1.0).problem] == Best("ours/narrow", pytest.approx(5.5), pytest.approx(6.0))
    assert timed("ours", 8, 1.0).problem not in found
    assert next(iter(variant_lines(found))).endswith(
        "M=1 fp16 back-to-back: ours/narrow 5.50 us, the default takes 6.00"
    )


def test_lines_for_the_terminal() -> None:
    made = session()
    head, ours, cublas, marlin, _ = measurement_lines(made, made.measurements[:4])
    assert head.startswith("llama3-8b o 4096x4096 g128 M=1 fp16 back-to-back, floor 2.9 us at 4 bits, 11.2 dense")
    assert "6.00 us +-0.10 [5.90, 6.10]" in ours
    assert "ours is 2.00x: faster" in cublas
    assert "error 2.0e-04" in marlin
    (_, wrong) = measurement_lines(made, [made.measurements[6]])
    assert wrong.split() == ["machete", "wrong:"]
    assert list(measurement_lines(made, [])) == []


def test_table_by_hand() -> None:
    text = render([Results("A GPU", [session()])])
    assert (
        "| llama3-8b o (4096 x 4096) | 1 | 6.0 ± 0.1 | 49% | 2.00x | 1.50x (marlin) | faster |\n"
        "| llama3-8b o (4096 x 4096) | 16 | 8.1 ± 0.1 | 37% | - | 0.99x (marlin) | no claim |\n"
    ) in text
    assert text.startswith("**A GPU**, 2026-01-02, CUDA graph, events; awqbench 1, torch 2. Memory reads 3.00 TB/s")
    assert "Not there: humming." in text
    assert "ended before everything was measured" in text
    assert "isolated" not in text
    assert "fp16, isolated" in render([Results("A GPU", [session()])], full=True)


def test_the_newest_session_with_our_kernel_is_shown() -> None:
    newer = session()
    newer.id, newer.measurements = "2027-01-01", [timed("cublas", 1, 9.0)]
    assert "2026-01-02" in render([Results("A GPU", [session(), newer])])


def test_nothing_measured_is_said(tmp_path: Path) -> None:
    assert render(load_all(tmp_path / "none")) == render([]) == UNMEASURED
    assert render([Results("A GPU", [Session("1", "A GPU", "events")])]) == UNMEASURED


def test_putting_it_into_a_document() -> None:
    document = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = put(document, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert put(once, "new") == once
    for text in ("nothing", BEGIN, END, f"{END}{BEGIN}"):
        with pytest.raises(UserError, match="no lines"):
            put(text, "new")


@pytest.mark.parametrize(("document", "full"), [("README.md", False), ("docs/kernels.md", True)])
def test_documents_say_what_the_records_say(document: str, full: bool) -> None:
    """After measuring: awqbench kernels table --into README.md, and with --full --into docs/kernels.md."""
    path = ROOT / document
    if not path.is_file():
        pytest.skip("the documents are in a checkout only")
    text = path.read_text(encoding="utf-8")
    assert put(text, render(load_all(content("kernels") / "results"), full)) == text


def test_no_time_of_a_cpu_is_among_the_records() -> None:
    records = load_all(content("kernels") / "results")
    assert all(results.device != "CPU" for results in records)
