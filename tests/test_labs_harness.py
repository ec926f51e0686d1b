"""The lab harness, without a sandbox: each part against the smallest lab that can break it."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from labs import __main__ as cli
from labs.harness import both, cut, head, needs, only, program, recording, skips, trial, waiting
from labs.harness.event import Event, decode
from labs.harness.fact import Ledger
from labs.harness.lab import Experiment, Lab, discover
from labs.harness.normalise import Normaliser, normalise
from labs.harness.outcome import Outcome, Verdict
from labs.harness.problem import LabError, TimeLimitError
from labs.harness.report import Report, summary
from labs.harness.transcript import difference, markdown, normalised, shape
from labs.harness.world import World

_LAB = Lab(
    title="題",
    chapter="部/章",
    shows="何かを見ます。",
    facts={"one": "1である", "two": "2である"},
    needs=(program("sh", "dash"),),
    seconds=1,
)
_STUBBORN = "bash -c 'trap \"\" TERM; echo ready; while :; do sleep 0.05; done'"


def _nothing(world: World) -> None:
    pass


_EXPERIMENT = Experiment("toy", _LAB, _nothing, _nothing)


@pytest.fixture
def events() -> list[Event]:
    """Give a list that fills as a lab goes on."""
    return []


@pytest.fixture
def world(tmp_path: Path, events: list[Event]) -> Iterator[World]:
    """Give a world in a folder of its own, and end it."""
    folder = tmp_path / "lab"
    folder.mkdir()
    with closing(World(_LAB, events.append, folder)) as world:
        yield world


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


# The normaliser


def test_equal_ports_stay_equal_and_well_known_ports_stay() -> None:
    text = "192.0.2.1.40001 > 192.0.2.2.8080\n192.0.2.1:40001 192.0.2.1:41234"
    assert normalise(text) == "192.0.2.1.50001 > 192.0.2.2.8080\n192.0.2.1:50001 192.0.2.1:50002"


def test_a_sequence_number_keeps_its_distance_from_the_initial_one() -> None:
    syn = "Flags [S], seq 2181334503, win 1\nFlags [S.], seq 1874574145, ack 2181334504, win 1"
    rest = "Flags [P.], seq 2181334504:2181334514, ack 1874574146, length 10"
    assert re.findall(r"[12]0{6}\d\d", normalise(f"{syn}\n{rest}")) == [
        "100000000",
        "200000000",
        "100000001",
        "100000001",
        "100000011",
        "200000001",
    ]


def test_a_sequence_number_that_wraps_keeps_its_distance_too() -> None:
    text = "Flags [S], seq 4294967290, win 1\nFlags [.], ack 1000000, win 1"
    assert normalise(text).splitlines()[1] == "Flags [.], ack 200000000, win 1"
    text = "Flags [S], seq 4294867296, win 1\nFlags [.], ack 400000, win 1"
    assert normalise(text).splitlines()[1] == "Flags [.], ack 100500000, win 1"


def test_macs_and_addresses_are_renamed_by_first_appearance() -> None:
    text = (
        "link/ether d6:b6:78:6c:1f:e1\nlink/ether 52:54:00:12:34:56\nlink/ether d6:b6:78:6c:1f:e1"
    )
    ends = [line[-2:] for line in normalise(text).splitlines()]
    assert ends == ["01", "02", "01"]
    maps = "55619daa3000-55619daa5000 r--p 0\n55619daa5000-55619daaa000 r-xp 0"
    assert re.findall(r"<address-(\d+)>", normalise(maps)) == ["01", "02", "02", "03"]


def test_pids_are_renamed_in_tables_and_traces_but_pid_1_is_not() -> None:
    table = "  PID  PPID STAT COMMAND\n  759     1 Ss   bash\n  760   759 R    ps"
    assert normalise(table).split()[4:] == ["7001", "1", "Ss", "bash", "7002", "7001", "R", "ps"]
    trace = '759   clone(child_stack=NULL) = 760\n760   execve("/usr/bin/ls") = 0'
    assert re.findall(r"70\d\d", normalise(trace)) == ["7001", "7002", "7002"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("12:34:56.789012 IP", "… IP"),
        ("time=0.032 ms", "time=… ms"),
        ("1.5 GB/s", "… GB/s"),
        ("[TS val 123 ecr 456]", "[TS val … ecr …]"),
        ("timer:(timewait,59sec,0)", "timer:(timewait,…,0)"),
    ],
)
def test_times_and_rates_are_masked(text: str, masked: str) -> None:
    assert normalise(text) == masked


@pytest.mark.parametrize(
    "text", ["192.0.2.1/24 mtu 1500", "exit code 139", "10240 MiB", "25600ページ", "2.6.7001.5"]
)
def test_what_a_lab_chose_itself_stays(text: str) -> None:
    assert normalise(text) == text


def test_a_lab_may_add_patterns_and_values_of_its_own() -> None:
    assert normalise("xid 0xabc, xid 0xdef", [r"xid (?P<xid>\w+)"]) == "xid <xid-1>, xid <xid-2>"
    normaliser = Normaliser()
    normaliser.know("pid", "4242")
    assert normaliser.texts(["自分は4242", "4242.5と14242"]) == ["自分は7001", "4242.5と14242"]


def test_a_value_met_once_is_recognised_everywhere() -> None:
    texts = ["ISN 2181334503に続く", "Flags [S], seq 2181334503, win 1"]
    assert Normaliser().texts(texts)[0] == "ISN 100000000に続く"


# Facts and controls


def test_an_unknown_fact_is_refused_with_those_that_exist(world: World) -> None:
    with pytest.raises(LabError, match=r"「three」.*one、two"):
        world.fact("three", True, seen="3")


def test_a_fact_is_proved_only_once(world: World) -> None:
    world.fact("one", True, seen="1")
    with pytest.raises(LabError, match="2回"):
        world.fact("one", True, seen="1")


def test_a_fact_that_was_not_proved_is_named() -> None:
    ledger = Ledger(_LAB.facts)
    ledger.tell("one", holds=True)
    with pytest.raises(LabError, match="two"):
        ledger.close_run()


def test_a_false_fact_is_told_in_one_line_and_the_lab_goes_on(
    world: World, events: list[Event]
) -> None:
    world.fact("one", False, seen="7")
    world.fact("two", True, seen="2")
    outcome = Outcome(_EXPERIMENT, run=events)
    assert outcome.failures == ["toy/one: 期待「1である」、見えたもの「7」"]
    assert outcome.verdict == Verdict.FAILED


def test_a_control_must_make_its_fact_false(world: World, events: list[Event]) -> None:
    world.control("one", False, why="原因がない", seen="0")
    assert Outcome(_EXPERIMENT, control=events).verdict == Verdict.PROVED
    world.control("one", True, why="原因がない", seen="1")
    assert "対照になっていません" in Outcome(_EXPERIMENT, control=events).failures[0]


def test_a_control_that_tries_nothing_is_an_error(world: World) -> None:
    with pytest.raises(LabError, match="対照実験"):
        world.ledger.close_control()
    with pytest.raises(LabError, match="three"):
        world.control("three", False, why="", seen="")


def test_an_address_that_the_lab_does_not_announce_is_an_error(world: World) -> None:
    world.network.addresses.append(("a", "eth0", "192.0.2.9/24"))
    with pytest.raises(LabError, match=r"192\.0\.2\.9"):
        world.network.check([("a", "eth0", "192.0.2.1/24")])


# Commands, waiting and ending


def test_a_command_is_shown_with_its_output(world: World, events: list[Event]) -> None:
    done = world.do("echo a; echo b >&2; false", code=1)
    assert (done.lines, done.code) == (["a", "b"], 1)
    assert [(event.kind, event.label + event.text) for event in events] == [
        ("command", "$ echo a; echo b >&2; false"),
        ("output", "a\nb"),
    ]


def test_a_wrong_exit_code_is_told_with_the_output(world: World) -> None:
    with pytest.raises(LabError, match=r"(?s)終了コードが3.*期待: 0.*oops"):
        world.do("echo oops; exit 3")


def test_a_command_ended_by_a_signal_has_a_shells_exit_code(world: World) -> None:
    assert world.ask("kill -9 $$", code=None).code == 137


def test_every_command_has_the_same_environment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANG", "ja_JP.UTF-8")
    monkeypatch.setenv("COLUMNS", "40")
    assert not world.ask("env").has("^(LANG|COLUMNS)=")


def test_a_time_out_says_what_was_awaited() -> None:
    with pytest.raises(TimeLimitError, match=r"0\.1秒.*扉が開く"):
        waiting.until(lambda: False, "扉が開く", 0.1)


def test_a_repeated_command_shows_the_last_time_only(world: World, events: list[Event]) -> None:
    world.do("echo x >> log; wc -l < log", until="3")
    assert [event.text for event in events if event.kind == "output"] == ["3"]


def test_a_repeated_command_that_never_matches_tells_its_last_output(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World.until, "__defaults__", (0.1,))
    with pytest.raises(TimeLimitError, match=r"(?s)/never/.*最後の出力:\nagain"):
        world.do("echo again", until="never")


def test_a_background_process_that_ended_too_early_is_told_with_its_output(world: World) -> None:
    background = world.start("bash -c 'echo no such thing >&2; exit 1'")
    with pytest.raises(LabError, match=r"(?s)終わってしまいました.*no such thing"):
        background.wait_for("listening")


def test_background_processes_end_with_the_lab_even_stubborn_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labs.harness.process._GRACE", 0.2)
    stubborn = world.start(_STUBBORN)
    stubborn.wait_for("ready")
    family = world.start("bash -c 'sleep 600 & echo $!; wait'")
    child = int(family.wait_for(r"(\d+)")[1])
    world.close()
    assert not stubborn.running
    waiting.until(lambda: not _alive(child), "子も終わる", 5)


def test_what_is_to_be_undone_is_undone_last_first(world: World) -> None:
    world.undo("echo first >> undone")
    world.undo("echo second >> undone")
    world.close()
    assert (world.folder / "undone").read_text().split() == ["second", "first"]


def test_a_prompt_answers_remembers_and_expects_exceptions(
    world: World, events: list[Event]
) -> None:
    prompt = world.python()
    prompt("x = 6")
    assert prompt("x * 7") == "42"
    assert prompt("1 / 0", raises="ZeroDivisionError").startswith("ZeroDivisionError")
    with pytest.raises(LabError, match="KeyError"):
        prompt("{}['no']")
    assert [event.label for event in events if event.text == "x * 7"] == [">>> "]


def test_views_leave_ellipses_and_the_lab_still_gets_everything(
    world: World, events: list[Event]
) -> None:
    done = world.do("seq 1 9", show=both(only("[1289]"), cut("2")))
    assert len(done.lines) == 9
    assert events[-1].text == "1\n…\n…\n8\n9"
    assert head(1)("a\nb\nc") == "a\n…"


# Transcripts


def _told(*pairs: tuple[str, str]) -> list[Event]:
    commands = [Event("command", command, "$ ") for command, _ in pairs]
    outputs = [Event("output", output) for _, output in pairs]
    return [event for pair in zip(commands, outputs, strict=True) for event in pair]


def test_a_transcript_has_sections_that_a_chapter_can_include() -> None:
    run = [Event("section", "始め", "begin"), *_told(("ls", "x")), Event("fact", "1", "one")]
    text = markdown(_EXPERIMENT, run, [Event("section", "除く", "gone"), *_told(("rm x", ""))])
    for name in ("run", "begin", "control", "control-gone"):
        assert text.count(f"[start:{name}]") == text.count(f"[end:{name}]") == 1
    assert "```console\n$ ls\nx\n```\n\n- ✓ 1である（`toy/one`）\n    - 見えたもの: 1\n" in text


def test_a_stable_lab_keeps_every_line_and_another_its_commands_and_facts() -> None:
    before = markdown(_EXPERIMENT, [*_told(("ls", "x")), Event("fact", "1", "one")], [])
    other_output = markdown(_EXPERIMENT, [*_told(("ls", "y")), Event("fact", "9", "one")], [])
    other_command = markdown(_EXPERIMENT, [*_told(("ls -a", "x")), Event("fact", "1", "one")], [])
    assert "+y" in difference(before, other_output, stable=True)
    assert difference(before, other_output, stable=False) == ""
    assert "+$ ls -a" in difference(before, other_command, stable=False)
    assert not any("見えたもの" in line for line in shape(before, stable=True))


def test_teaching_a_name_leaves_no_trace_but_the_name() -> None:
    events = [Event("name", "4242", "pid"), Event("say", "PIDは4242です"), Event("end")]
    assert [event.text for event in normalised(events)] == ["PIDは7001です"]


def test_an_event_travels_as_one_line() -> None:
    event = Event("fact", "二行\nの値", "one", good=False)
    assert event.encode().count(b"\n") == 1
    assert decode(event.encode()) == event


def test_a_record_is_kept_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "FOLDER", tmp_path)
    facts = [Event("fact", "1", "one"), Event("fact", "2", "two")]
    outcome = Outcome(_EXPERIMENT, run=[*_told(("ls", "x")), *facts])
    assert "+$ ls" in recording.compare(outcome)
    recording.record(outcome)
    assert recording.compare(outcome) == ""
    assert '"kernel"' in (tmp_path / "toy.json").read_text(encoding="utf-8")


# Needs and skips


def test_a_need_is_met_by_trying_it() -> None:
    assert program("sh").met()
    assert not program("no-such-program").met()
    assert not trial("偽", "false", "直らない").met()
    assert needs.packages([program("ip", "iproute2"), trial("偽", "false", "")]) == ["iproute2"]


def _skipped() -> Outcome:
    return Outcome(_EXPERIMENT, run=[Event("skip", "sudo apt-get install -y x", "x")])


def test_a_missing_need_is_a_skip_that_names_its_cure() -> None:
    assert _skipped().verdict == Verdict.SKIPPED
    assert "sudo apt-get install -y x" in summary([_skipped()])


def test_in_ci_a_skip_is_a_failure_unless_listed_with_its_reason() -> None:
    assert skips.unexcused([_skipped()], "") != []
    assert skips.unexcused([_skipped()], "toy:\n# toy: 注釈") != []
    assert skips.unexcused([_skipped()], "toy: このカーネルにない") == []


def test_exit_codes_tell_failures_from_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = Outcome(_EXPERIMENT, run=[Event("error", "だめ")])
    assert cli.exit_code([Outcome(_EXPERIMENT)], ci=False) == 0
    assert cli.exit_code([_skipped()], ci=False) == 4
    assert cli.exit_code([_skipped(), failed], ci=False) == 1
    assert cli.exit_code([_skipped()], ci=True) == 1


# What people read and type


def test_the_live_report_follows_what_happens(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(_EXPERIMENT)
    report.begin()
    for event in [*_told(("ls", "x")), Event("fact", "1", "one"), Event("fact", "3", "two", False)]:
        report.tell(event)
    told = capsys.readouterr().out
    for part in (
        "動かす権限",
        "  $ ls\n  x\n",
        "✓ 1である [one]",
        "✗ 2である [two]",
        "見えたもの: 3",
    ):
        assert part in told


def test_the_list_names_every_lab(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert discover()
    assert all(name in listed for name in discover())


def test_packages_are_those_of_all_labs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["packages"]) == 0
    assert {"iproute2", "strace", "tcpdump"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("words", [["run"], ["run", "no-such-lab"], ["check", "x"], ["sing"]])
def test_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err


def _imports(function: Callable[[World], None]) -> set[str]:
    source = Path(function.__code__.co_filename).read_text(encoding="utf-8")
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import)]
    return {alias.name for node in nodes for alias in node.names}


@pytest.mark.parametrize("experiment", discover().values(), ids=discover().keys())
def test_every_lab_is_described_in_full(experiment: Experiment) -> None:
    lab = experiment.lab
    assert lab.facts
    assert lab.seconds < lab.limit
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", fact) for fact in lab.facts)
    assert all(text and not text.endswith("。") for text in lab.facts.values())
    assert "time" not in _imports(experiment.run), "眠らずに、world.untilで待ってください"
    assert recording.transcript_path(experiment).is_file()
