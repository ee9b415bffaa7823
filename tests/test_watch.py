"""What a run shows while it goes on."""

import io

import pytest
from rich.console import Console

from awqbench.executors.cell import Outcome
from awqbench.job import Job
from awqbench.watch import Display


@pytest.mark.parametrize("told", [[], [(1, 3)], [(1, 3), (3, 3)]], ids=["nothing", "a third", "all"])
def test_a_job_that_ended_is_one_more_done(told):
    with Display(Console(file=io.StringIO(), force_terminal=True)) as display:
        for number in range(1, 5):
            job = Job(f"cell/awq/suite{number}", "cell", "awq", f"suite{number}", "candidate", "k", ())
            progress = display.begin(job, number, 4)
            for done, total in told:
                progress(done, total)
            display.end(job, Outcome("ok"))
            assert display.progress.tasks[0].completed == number


def test_a_reason_is_one_line_wherever_it_is_read():
    """In a log it would be folded at 80 columns, and its command or path with it."""
    reason = "no engine vllm here: " + "awqbench env create vllm, then the same command; " * 3
    seen = io.StringIO()
    with Display(Console(file=seen)) as display:
        job = Job("cell/v/tasks", "cell", "v", "tasks", "candidate", "k", ())
        display.begin(job, 1, 1)
        display.end(job, Outcome("skipped", reason))
    assert reason.strip() in seen.getvalue()
