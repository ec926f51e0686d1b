"""The rival: the same Markdown under Material's defaults, drawn by mermaid2 in the browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.diagrams.painter import MERMAID, ROOT

_CONFIG = """site_name: 素のMaterial
theme:
  name: material
  language: ja
  font: false # else it would wait for another host
plugins:
  - search: {lang: ja}
  - mermaid2:
      version: 12.3.0
      javascript: mermaid.min.js
      arguments: {layout: elk}
markdown_extensions:
  - admonition
  - attr_list
  - def_list
  - footnotes
  - md_in_html
  - tables
  - toc: {permalink: true}
  - pymdownx.details
  - pymdownx.highlight
  - pymdownx.snippets: {base_path: [includes, labs], auto_append: [sources.md]}
  - pymdownx.superfences:
      custom_fences:
        - name: mermaid
          class: mermaid
          format: !!python/name:pymdownx.superfences.fence_div_format
"""


def build(folder: Path, pages: list[str]) -> Path:
    """Build the pages (`os/virtual-memory.md` …) in `folder`; return the built site."""
    for page in ["index.md", *pages]:
        (folder / "docs" / page).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "docs" / page, folder / "docs" / page)
    shutil.copyfile(MERMAID, folder / "docs/mermaid.min.js")
    for name in ("includes", "labs"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name)
    (folder / "mkdocs.yml").write_text(_CONFIG, encoding="utf-8")
    command = [sys.executable, "-m", "mkdocs", "build", "-q"]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=folder, env=quiet, check=True, stderr=subprocess.DEVNULL)
    return folder / "site"
