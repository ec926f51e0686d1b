"""The command line: `python -m labs list|run|record|check|needs|packages`."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TypeAlias

from labs.harness import needs, recording, report, runner, skips
from labs.harness.lab import Experiment, discover
from labs.harness.outcome import Outcome, Verdict

_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
_USAGE = 2
_INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="labs", description="章の事実を、実験で確かめます")
    commands = parser.add_subparsers(dest="command", required=True, metavar="コマンド")
    commands.add_parser("list", help="実験の一覧")
    _add(commands, "run", "実験を動かす")
    _add(commands, "record", "実験を動かし、記録を取り直す")
    _add(commands, "check", "実験を動かし、記録と比べる")
    needs_parser = commands.add_parser("needs", help="要るものがそろっているかを試す")
    needs_parser.add_argument("names", nargs="*", metavar="NAME")
    commands.add_parser("packages", help="要るDebianのパッケージの一覧")
    return parser


def _add(commands: _Commands, name: str, text: str) -> None:
    parser = commands.add_parser(name, help=text)
    parser.add_argument("names", nargs="*", metavar="NAME", help="実験の名前")
    parser.add_argument("--all", action="store_true", help="すべて")
    parser.add_argument("--jobs", type=int, default=1, help="同時に動かす数")
    parser.add_argument("--yes", action="store_true", help="マシン全体に触れる実験でも尋ねない")
    parser.add_argument("--ci", action="store_true", help="理由のない飛ばしを失敗とする")


def _chosen(names: Sequence[str], *, everything: bool) -> list[Experiment]:
    found = discover()
    if everything:
        return list(found.values())
    wanted = [name.replace("_", "-") for name in names]
    if unknown := [name for name in wanted if name not in found]:
        known = "、".join(found)
        raise SystemExit(_wrong(f"実験「{unknown[0]}」はありません。あるもの: {known}"))
    if not wanted:
        raise SystemExit(_wrong("実験の名前か --all を渡してください（一覧: python -m labs list）"))
    return [found[name] for name in wanted]


def _wrong(text: str) -> int:
    print(text, file=sys.stderr)
    return _USAGE


def _list() -> int:
    for name, experiment in discover().items():
        lab = experiment.lab
        notes = [f"事実{len(lab.facts)}", f"{lab.seconds}秒", *(["要root"] if lab.root else [])]
        print(f"{name:<22} {lab.title}（{'、'.join(notes)}）")
    return 0


def _needs(names: Sequence[str]) -> int:
    missing = False
    for experiment in _chosen(names, everything=not names):
        lacking = runner.probe(experiment)
        print(f"{'✗' if lacking else '✓'} {experiment.id}")
        for event in lacking:
            print(f"    足りないもの: {event.label}。直し方: {event.text}")
        missing = missing or bool(lacking)
    return Verdict.SKIPPED if missing else 0


def _packages() -> int:
    wanted = (need for experiment in discover().values() for need in experiment.lab.needs)
    print(" ".join(needs.packages(wanted)))
    return 0


def exit_code(outcomes: Sequence[Outcome], *, ci: bool) -> int:
    """Return what the outcomes mean together."""
    text = skips.PATH.read_text(encoding="utf-8") if skips.PATH.exists() else ""
    unexcused = skips.unexcused(outcomes, text) if ci else []
    for line in unexcused:
        print(f"✗ {line}")
    verdicts = {outcome.verdict for outcome in outcomes}
    if Verdict.FAILED in verdicts or unexcused:
        return Verdict.FAILED
    return Verdict.SKIPPED if Verdict.SKIPPED in verdicts and not ci else Verdict.PROVED


def _record(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.verdict == Verdict.PROVED:
            for path in recording.record(outcome):
                print(f"記録しました: {path.relative_to(path.parents[1])}")


def _check(outcomes: Sequence[Outcome]) -> bool:
    differs = False
    for outcome in outcomes:
        diff = recording.compare(outcome) if outcome.verdict == Verdict.PROVED else ""
        if diff:
            print(f"\n✗ {outcome.experiment.id}: 記録と形が違います\n{diff}")
            print(f"よければ取り直してください: python -m labs record {outcome.experiment.id}")
        differs = differs or bool(diff)
    return differs


def _run(options: argparse.Namespace) -> int:
    chosen = _chosen(options.names, everything=options.all)
    outcomes = runner.run(chosen, jobs=options.jobs, yes=options.yes)
    print("\n" + report.summary(outcomes))
    if options.command == "record":
        _record(outcomes)
    if options.command == "check" and _check(outcomes):
        return Verdict.FAILED
    return exit_code(outcomes, ci=options.ci)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 proved, 1 a fact failed, 4 skipped, 2 wrong usage."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    try:
        if options.command == "list":
            return _list()
        if options.command == "packages":
            return _packages()
        return _needs(options.names) if options.command == "needs" else _run(options)
    except KeyboardInterrupt:
        runner.stop_all()
        print("\n止めました。何も残っていません", file=sys.stderr)
        return _INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
