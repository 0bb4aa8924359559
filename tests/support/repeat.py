"""A pytest plugin that runs each test many times: `PYTHONPATH=tests pytest -p support.repeat --repeat 20 FILE`."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--repeat", type=int, default=1, help="how often each test runs")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    times = metafunc.config.getoption("--repeat")
    if times > 1:
        metafunc.fixturenames.append("number_of_run")
        metafunc.parametrize("number_of_run", range(1, times + 1))
