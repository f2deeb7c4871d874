"""The health endpoint, asked over HTTP."""

import json
import urllib.error
import urllib.request

import pytest

from sagakit.app.health import Report, health_endpoint
from sagakit.app.settings import Settings

SETTINGS = Settings(health_port=0)


def asked(url: str) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize(
    ("live", "ready", "codes"), [(True, True, (200, 200)), (True, False, (200, 503)), (False, False, (503, 503))]
)
def test_each_path_answers_by_its_own_question(live: bool, ready: bool, codes: tuple[int, int]) -> None:
    report = Report(live=live, ready=ready, details={"blocked": {"inbox[3]": "a definition is unknown"}})
    with health_endpoint(SETTINGS, lambda: report) as address:
        answers = [asked(f"{address}/{path}") for path in ("live", "ready")]
    assert [code for code, _ in answers] == list(codes)
    assert answers[0][1] == {"live": live, "blocked": {"inbox[3]": "a definition is unknown"}}
    assert answers[1][1] == {"ready": ready, "blocked": {"inbox[3]": "a definition is unknown"}}


def test_it_tells_what_is_so_now() -> None:
    reports = [Report(live=True, ready=False), Report(live=True, ready=True)]
    with health_endpoint(SETTINGS, lambda: reports.pop(0)) as address:
        assert [asked(f"{address}/ready")[0] for _ in range(2)] == [503, 200]


def test_without_a_port_there_is_none() -> None:
    with health_endpoint(Settings(), lambda: Report(live=True, ready=True)) as address:
        assert address is None


def test_it_is_gone_after_the_block() -> None:
    with health_endpoint(SETTINGS, lambda: Report(live=True, ready=True)) as address:
        pass
    with pytest.raises(urllib.error.URLError):
        asked(f"{address}/live")
