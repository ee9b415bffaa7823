"""junit.xml: one test case per declared limit, so that any CI system can show which one failed."""

from __future__ import annotations

from xml.etree import ElementTree

from awqbench.record.reader import Run
from awqbench.record.schema import RuleResult
from awqbench.report import select
from awqbench.report.format import legal
from awqbench.report.sections.verdict import sentence


def junit(run: Run) -> str:
    """A fail is a failure, an invalid measurement an error; what is inconclusive or was not judged is skipped."""
    root = ElementTree.Element("testsuites", name="awqbench")
    rules = select.rules_of(run)
    for candidate in select.unique(rule.candidate for rule in rules):
        own = [rule for rule in rules if rule.candidate == candidate]
        suite = _suite(root, f"awqbench.{candidate}", run.measured, own)
        for rule in own:
            case = _case(suite, candidate, _name(rule))
            if rule.verdict == "fail":
                _message(case, "failure", sentence(rule), type=rule.kind)
            elif rule.verdict == "inconclusive":
                _message(case, "skipped", sentence(rule))
    invalid = run.verdict.invalid if run.verdict else []
    if invalid:
        suite = _suite(root, "awqbench.measurements", run.measured, [], errors=len(invalid))
        for i, line in enumerate(invalid, start=1):
            _message(_case(suite, "measurements", f"measurement {i}"), "error", line, type="InvalidMeasurement")
    unjudged = run.verdict.unjudged if run.verdict else []
    if unjudged:
        suite = _suite(root, "awqbench.not judged", run.measured, [], skipped=len(unjudged))
        for i, line in enumerate(unjudged, start=1):
            _message(_case(suite, "not judged", f"limit {i}"), "skipped", line)
    elsewhere = run.verdict.not_applicable if run.verdict else []
    if elsewhere:
        suite = _suite(root, "awqbench.not applicable", run.measured, [], skipped=len(elsewhere))
        for i, line in enumerate(elsewhere, start=1):
            _message(_case(suite, "not applicable", f"optional limit {i}"), "skipped", line)
    for key in ("tests", "failures", "errors", "skipped"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(
    root: ElementTree.Element, name: str, measured: str, rules: list[RuleResult], errors: int = 0, skipped: int = 0
) -> ElementTree.Element:
    return ElementTree.SubElement(
        root,
        "testsuite",
        name=legal(name),
        tests=str(len(rules) + errors + skipped),
        failures=str(sum(rule.verdict == "fail" for rule in rules)),
        errors=str(errors),
        skipped=str(skipped + sum(rule.verdict == "inconclusive" for rule in rules)),
        time="0",
        timestamp=legal(measured),
    )


def _case(suite: ElementTree.Element, candidate: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=legal(candidate), name=legal(name), time="0")


def _message(case: ElementTree.Element, tag: str, text: str, type: str | None = None) -> None:
    attributes = {"message": legal(text)} | ({"type": type} if type else {})
    ElementTree.SubElement(case, tag, attributes).text = legal(text)


def _name(rule: RuleResult) -> str:
    group = f" [{rule.attribute} = {rule.group}]" if rule.group is not None else ""
    metric = "" if rule.metric in rule.rule else f": {rule.metric}"
    return f"{rule.rule}{metric}{group}"
