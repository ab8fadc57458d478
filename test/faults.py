"""The table of faults: what was tried, what happens, and whether it did."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

HEADER = """# Faults

Written by `make faults`: each line is tried over the real middleware by one or more tests of `test/node/`.

| fault | what happens | tried |
|---|---|---|
"""


class FaultTable:
    """Writes the faults of the marked tests that ran (`@pytest.mark.fault(fault, what_happens)`)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._faults: dict[str, tuple[str, str]] = {}
        self._outcomes: dict[tuple[str, str], Counter[str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        self._faults = {item.nodeid: mark.args for item in items for mark in item.iter_markers("fault")}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self._faults and (report.when == "call" or not report.passed):
            outcomes = self._outcomes.setdefault(self._faults[report.nodeid], Counter())
            outcomes["failed" if report.failed else report.outcome] += 1

    def pytest_sessionfinish(self) -> None:
        self._path.write_text(HEADER + "".join(_row(*fault, tried) for fault, tried in self._outcomes.items()))


def _row(fault: str, what: str, tried: Counter[str]) -> str:
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in sorted(tried.items()))
    return f"| {fault} | {what} | {outcomes} |\n"
