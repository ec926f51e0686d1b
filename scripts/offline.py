"""Pack the whole site into a ZIP that works from a folder: search, diagrams, no network."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path

from scripts import build

NAME = "infra-notes-offline"
FOLDER = Path(".cache") / NAME
ZIP = Path("dist") / f"{NAME}.zip"
_STAMP = (2020, 1, 1, 0, 0, 0)  # the same for all, so that the same site gives the same bytes
_UNUSED = ("sitemap.xml", "sitemap.xml.gz", "404.html")


def pack(folder: Path, path: Path) -> None:
    """Write the files of a folder into a ZIP, under the folder's name."""
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = f"{folder.name}/{file.relative_to(folder).as_posix()}"
                entry = zipfile.ZipInfo(name, _STAMP)
                archive.writestr(entry, file.read_bytes(), zipfile.ZIP_DEFLATED)


def main() -> int:
    """Build and pack; return the build's exit code."""
    code = build.build(FOLDER, OFFLINE="true")
    if code:
        return code
    for name in _UNUSED:
        (FOLDER / name).unlink(missing_ok=True)
    pack(FOLDER, ZIP)
    shutil.rmtree(FOLDER)
    print(f"{ZIP} を作りました({ZIP.stat().st_size / 1024:.0f} KiB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
