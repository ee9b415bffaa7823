"""junit.xml as CI parsers read it."""

from __future__ import annotations

from xml.etree import ElementTree

from awqbench.record.reader import Run
from awqbench.report.junit import junit


def test_a_case_per_rule(rendered: dict[str, str], run: Run) -> None:
    root = ElementTree.fromstring(rendered["junit.xml"])
    assert run.verdict is not None
    cases = root.findall("./testsuite/testcase")
    assert len(cases) == len(run.verdict.rules) == int(root.attrib["tests"])
    assert {case.attrib["classname"] for case in cases} == {"awq"}
    assert len({case.attrib["name"] for case in cases}) == len(cases)
    by_name = {case.attrib["name"]: case for case in cases}
    failure = by_name["perplexity/*: perplexity/synthetic-text@1024"].find("failure")
    assert failure is not None
    assert "limit 5 %" in failure.attrib["message"]
    assert by_name["fairness/*: fairness/synthetic_set/accuracy [origin = south]"].find("failure") is not None
    assert by_name["tasks/*/acc: tasks/synthetic_task/acc"].find("skipped") is not None
    assert len(by_name["divergence/*/prefill/kl: divergence/synthetic-text@512/prefill/kl"]) == 0
    for suite in [root, *root.findall("testsuite")]:
        counted = {"failures": "failure", "errors": "error", "skipped": "skipped"}
        for key, tag in counted.items():
            assert int(suite.attrib[key]) == len(suite.findall(f".//{tag}"))


def test_invalid_measurements_are_errors_and_odd_characters_do_not_break_the_file(run: Run) -> None:
    assert run.verdict is not None
    run.verdict.invalid = ["awq/latency: failed: \x00 bad <byte> \ud800"]
    root = ElementTree.fromstring(junit(run).encode())
    errors = root.findall(".//error")
    assert [error.attrib["message"] for error in errors] == ["awq/latency: failed: � bad <byte> �"]
    assert root.attrib["errors"] == "1"


def test_a_limit_that_could_not_be_measured_is_not_green(run: Run) -> None:
    assert run.verdict is not None
    before = int(ElementTree.fromstring(junit(run)).attrib["skipped"])
    run.verdict.unjudged = ["vllm/perplexity: skipped: run: awqbench env create vllm (limit on perplexity/*)"]
    root = ElementTree.fromstring(junit(run))
    assert int(root.attrib["skipped"]) == before + 1
    (case,) = root.findall("./testsuite[@name='awqbench.not judged']/testcase")
    found = case.find("skipped")
    assert found is not None
    assert found.attrib["message"] == run.verdict.unjudged[0]
    assert int(root.attrib["tests"]) == len(root.findall(".//testcase"))


def test_no_rules_give_an_empty_file_that_parses(run: Run) -> None:
    run.verdict = None
    assert ElementTree.fromstring(junit(run)).attrib["tests"] == "0"
