"""What the recorded labs give the site: the catalogue, and a reference for every fact.

`python -m scripts.lab_pages` writes both; the site's build does so by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import made
from scripts.problem import Problem

LABS = Path("labs")
PAGE = Path("docs/labs/index.md")
REFERENCES = Path("includes/facts.md")
_UP = "../labs/index.md#"
UNCITED = LABS / "uncited.txt"
_HEAD = """---
title: 実験の一覧
description: 章の主張を確かめる{count}の実験と、示す事実、時間、要るもの、最後に動いた場所。
search:
  boost: 0.3
---

<!-- labs/の記録から作られるページです。直すときは実験を直し、記録を取り直してください。 -->

# 実験の一覧 {{#labs}}

章が「〔実験〕」と引く事実を、実際に動かして確かめる小さなプログラムです。{count}の実験が{facts}の事実を示します。
どの実験にも「対照」があります。原因を取り除いて同じことをし、事実のほうが成り立たなくなることまで確かめます。

手元で動かす準備は[実験を動かす準備](setup.md)にあります。

```console
$ python3 -m labs list                  # 一覧
$ python3 -m labs run tcp-connection    # 1つを動かす
```

| 実験 | 事実 | 時間 | 権限 |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Record:
    """One recorded lab: what stands in labs/ID.json."""

    id: str
    content: Mapping[str, Any]

    @property
    def module(self) -> Path:
        """Return the lab's program."""
        return LABS / f"{self.id.replace('-', '_')}.py"

    @property
    def facts(self) -> dict[str, str]:
        """Return the sentences by `lab/fact`."""
        return {f"{self.id}/{name}": fact["text"] for name, fact in self.content["facts"].items()}

    @property
    def chapter(self) -> str:
        """Return the chapter's source, relative to docs/."""
        return f"{self.content['chapter']}.md"

    @property
    def rights(self) -> str:
        """Return whose rights it asks for."""
        if self.content["machine_wide"]:
            return "root（マシン全体に触れる）"
        return "root" if self.content["root"] else "利用者（sudo不要）"


def read(folder: Path = LABS) -> list[Record]:
    """Return the recorded labs in the order of their ids."""
    paths = sorted(folder.glob("*.json"))
    return [Record(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in paths]


def anchor(fact: str) -> str:
    """Return the anchor of `lab/fact` in the catalogue."""
    return fact.replace("/", "-")


def _row(record: Record) -> str:
    title, seconds = record.content["title"], record.content["environment"]["seconds"]
    cells = [f"[{title}](#{record.id})", str(len(record.facts)), f"{seconds:.0f}秒", record.rights]
    return f"| {' | '.join(cells)} |"


def _where(environment: Mapping[str, Any]) -> str:
    place = f"{environment['distribution']}、カーネル{environment['kernel']}"
    return f"{environment['date']}、{place}（{environment['machine']}、CPU {environment['cpus']}）"


def _entry(record: Record, docs: Path) -> Iterator[str]:
    content = record.content
    yield f"## {content['title']} {{#{record.id}}}\n\n{content['shows']}\n"
    for fact, sentence in record.facts.items():
        yield f'- <span id="{anchor(fact)}">{sentence}</span>'
    yield f"\n- 対照: {len(content['controls'])}件"
    if (docs / record.chapter).is_file():
        yield f"- 章: [この実験を読む](../{record.chapter}#hands-on)"
    yield f"- 要るもの: {'、'.join(content['needs'])}"
    yield f"- 権限: {record.rights}"
    yield f"- 最後に動いた日と場所: {_where(content['environment'])}\n"
    yield f"```console\n$ python3 -m labs run {record.id}\n```\n"


def catalogue(records: list[Record], docs: Path = Path("docs")) -> str:
    """Return the Markdown of the catalogue."""
    facts = sum(len(record.facts) for record in records)
    parts = [_HEAD.format(count=len(records), facts=facts) + "\n".join(map(_row, records)), ""]
    for record in records:
        parts += _entry(record, docs)
    return "\n".join(parts) + "\n"


def references(records: list[Record], repository: str = "") -> str:
    """Return a reference link for each fact and program, for chapters one folder deep."""
    lines = []
    for record in records:
        program = f"{repository}/blob/main/{record.module}" if repository else f"{_UP}{record.id}"
        lines.append(f"[lab-{record.id}]: {program}")
        lines += [f"[{fact}]: {_UP}{anchor(fact)}" for fact in record.facts]
    return "\n".join([*lines, ""])


def write(records: list[Record], repository: str = "") -> None:
    """Write both files where they changed: a preview would build again."""
    pages = {REFERENCES: references(records, repository)} | (
        {PAGE: catalogue(records)} if records else {}
    )
    for path, text in pages.items():
        made.write(path, text)


def excused(path: Path = UNCITED) -> dict[str, str]:
    """Return the facts that no chapter need cite yet, with their reasons."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.partition(":") for line in lines if line and not line.startswith("#"))
    return {fact.strip(): reason.strip() for fact, _, reason in pairs if reason.strip()}


def uncited(
    records: Iterable[Record], cited: set[str], chapters: set[str], reasons: Mapping[str, str]
) -> Iterator[Problem]:
    """Yield the facts of written chapters' labs that no page cites."""
    for record in records:
        for fact in record.facts if record.chapter in chapters else ():
            if fact not in cited and fact not in reasons:
                name = fact.split("/")[1]
                text = record.module.read_text(encoding="utf-8").split("\n")
                line = next((n for n, said in enumerate(text, 1) if f'"{name}"' in said), 1)
                cure = (
                    f"章に〔[実験][{fact}]〕と書くか、{UNCITED}に「{fact}: 理由」を加えてください"
                )
                what = f"事実「{fact}」をどの章も引いていません"
                yield Problem(str(record.module), line, what, cure)


if __name__ == "__main__":
    write(read())
