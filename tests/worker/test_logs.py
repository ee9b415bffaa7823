"""The end of a log, whatever is in it."""

from __future__ import annotations

from pathlib import Path

from awqbench.worker.logs import tail


def written(tmp_path: Path, raw: bytes) -> Path:
    (tmp_path / "log.txt").write_bytes(raw)
    return tmp_path / "log.txt"


def test_last_lines_that_hold_something(tmp_path: Path) -> None:
    log = written(tmp_path, b"".join(b"line %d\n\n" % i for i in range(100)))
    assert tail(log, 3) == ["line 97", "line 98", "line 99"]
    assert len(tail(log)) == 20


def test_colours_progress_bars_and_garbage_do_not_show(tmp_path: Path) -> None:
    log = written(tmp_path, b"\x1b[31;1mred\x1b[0m \x00\x07\xff\n10%\r50%\r100%\r\nna\xc3\xafve\xe2\x80\xae\n")
    assert tail(log) == ["red \ufffd", "100%", "naïve"]


def test_a_long_line_is_cut_and_a_huge_log_is_not_read(tmp_path: Path) -> None:
    log = written(tmp_path, b"x" * 1000 + b"\n")
    assert tail(log) == ["x" * 400 + " ..."]
    with log.open("r+b") as stream:
        stream.seek(2**40)  # a terabyte, sparse
        stream.write(b"\nthe end\n")
    assert tail(log, 1) == ["the end"]


def test_no_log(tmp_path: Path) -> None:
    assert tail(tmp_path / "none.txt") == []
