"""Check the diagrams of Markdown files: `python -m scripts.diagrams check FILE … [--png DIR]`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from mkdocs.config import load_config

from scripts import chromium
from scripts.diagrams import figure, review, settings
from scripts.diagrams.fence import Fence, find_fences
from scripts.diagrams.painter import Drawing
from scripts.problem import report

_CSS = Path("docs/assets/css/diagram.css")
_PICTURE = """<!doctype html><meta charset="utf-8"><body data-md-color-scheme="default"
style="margin:16px;background:#fff"><style>{css}</style><div class="md-typeset">{figure}</div>"""


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.diagrams")
    parser.add_argument("command", choices=["check"])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--png", type=Path, help="図を画像としても書き出すフォルダー")
    return parser.parse_args()


def _picture(fence: Fence, drawing: Drawing, folder: Path) -> None:
    id_ = figure.figure_id(fence)
    name = f"{Path(fence.path).stem}-{fence.line}.png"
    css = _CSS.read_text(encoding="utf-8") if _CSS.is_file() else ""
    with tempfile.TemporaryDirectory() as temporary:
        page = Path(temporary) / "figure.html"
        shown = figure.figure(fence, drawing, id_)
        page.write_text(_PICTURE.format(css=css, figure=shown), encoding="utf-8")
        size = f"--window-size={round(drawing.width) + 48},{round(drawing.height) + 180}"
        shot = [f"--screenshot={folder / name}", size, page.as_uri()]
        subprocess.run([chromium.require(), *chromium.FLAGS, *shot], check=True, stderr=-3)


def main() -> int:
    """Print problems and sizes; return 1 when there is a problem."""
    arguments = _arguments()
    texts = {path: path.read_text(encoding="utf-8") for path in arguments.files}
    fences = [fence for path, text in texts.items() for fence in find_fences(text, str(path))]
    problems, drawings = review.review(fences, settings.of(load_config("mkdocs.yml")))
    for fence in fences:
        drawing = drawings.get(fence.source)
        if drawing:
            print(f"{fence.path}:{fence.line}: {drawing.width:.0f}×{drawing.height:.0f}px")
        if drawing and arguments.png:
            arguments.png.mkdir(parents=True, exist_ok=True)
            _picture(fence, drawing, arguments.png)
    print(report(problems) or f"{len(fences)}枚の図に問題はありません")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
