"""What a name is to a file, when its space comes back, and which limits it meets."""

from __future__ import annotations

import re

from labs.harness import Done, Lab, World, cut, program, trial

LAB = Lab(
    title="名前とinode、領域の解放、権限",
    chapter="os/files",
    shows="専用の小さなファイルシステムで、名前、inode、領域、権限、上限の働きを見ます。",
    facts={
        "hard-link-is-the-same-inode": "ハードリンクは、同じinodeを指すもう1つの名前である",
        "data-outlives-the-first-name": "元の名前を消しても、ほかのハードリンクから読める",
        "symlink-breaks": "シンボリックリンクは、指す先の名前がなくなると開けない",
        "hard-link-stays-inside": "ハードリンクは、別のファイルシステムには作れない",
        "own-open-own-offset": "同じファイルを開き直すと、読み書きの位置は別になる",
        "open-file-keeps-its-space": "開かれているファイルは、rmしても領域が空かない",
        "closing-gives-the-space-back": "消したファイルの領域は、最後のfdを閉じたときに空く",
        "inodes-run-out": "領域が空いていても、inodeが尽きるとファイルを作れない",
        "sparse-file-takes-no-space": "書いていない穴は、サイズには入っても領域を使わない",
        "umask-takes-bits-away": "umaskは、新しいファイルの権限からビットを落とす",
        "directory-decides-deletion": "ファイルを消せるかは、ディレクトリの権限で決まる",
        "rename-leaves-open-files-alone": "renameで置き換えても、開いていた側は古い中身を読む",
        "emfile-at-the-limit": "fdが上限に達すると、openはEMFILEで失敗する",
    },
    needs=(
        program("bash"),
        program("lsof"),
        program("setpriv", "util-linux"),
        program("python3"),
        trial(
            "tmpfsのマウント",
            "mkdir -p /tmp/need && mount -t tmpfs lab /tmp/need && umount /tmp/need",
            "マウントを許してください（コンテナの中なら docker run --privileged）",
        ),
    ),
    seconds=1,
    alone=True,
    stable=True,
    names=(r"^(?P<inode>\d+) \d+ (?:regular|symbolic)",),
)

_UNPRIVILEGED = "setpriv --bounding-set=-all --inh-caps=-all"


def run(world: World) -> None:
    """Link, open, delete, fill, protect and replace files."""
    _set_up(world)
    _links(world)
    _offsets(world)
    _deleted_but_open(world)
    _inodes(world)
    _sparse(world)
    _permissions(world)
    _rename(world)
    _too_many(world)


def _set_up(world: World, inodes: int = 20) -> None:
    world.section("volume", "専用のファイルシステムを用意する")
    world.say("ほかのプログラムの影響がないように、16 MiBのtmpfsをvolにマウントします。")
    world.set_up("mkdir vol")
    world.set_up(f"mount -t tmpfs -o size=16m,nr_inodes={inodes} lab vol")


def _same_inode(world: World) -> bool:
    """Show two names; return whether they name one inode that counts two links."""
    done = world.do("stat -c '%i %h %F %n' vol/a vol/b")
    one, other = (line.split()[:2] for line in done.lines)
    return one == other and one[1] == "2"


def _is_missing(done: Done) -> bool:
    return done.has("No such file or directory")


def _links(world: World) -> None:
    world.section("links", "ハードリンクとシンボリックリンクを比べる")
    world.say("ファイルaに、ハードリンクbとシンボリックリンクcを作ります。")
    world.do("echo hello > vol/a; ln vol/a vol/b; ln -s a vol/c")
    world.say("表示は、inode番号、リンク数、種類、名前の順です。")
    same = _same_inode(world)
    world.do("stat -c '%i %h %F %N' vol/c")
    world.fact("hard-link-is-the-same-inode", same, seen="aとbは、同じinode番号でリンク数2")
    world.say("元の名前aを消してから、それぞれを読みます。")
    world.do("rm vol/a")
    holds = world.do("cat vol/b").text == "hello\n"
    world.fact("data-outlives-the-first-name", holds, seen="bからhelloを読めた")
    done = world.do("cat vol/c", code=1)
    world.fact("symlink-breaks", _is_missing(done), seen="No such file or directory")
    world.say("volの外は、別のファイルシステムです。そこへハードリンクを作ってみます。")
    done = world.do("ln vol/b outside", code=1)
    seen = "Invalid cross-device link（EXDEV）"
    world.fact("hard-link-stays-inside", _crosses(done), seen=seen)


def _crosses(done: Done) -> bool:
    return done.has("Invalid cross-device link")


def _read_twice(world: World, second: str) -> list[str]:
    """Read three bytes through one descriptor, then three through another."""
    world.do("echo abcdef > vol/text")
    prompt = world.python()
    prompt("import os")
    prompt("first = os.open('vol/text', os.O_RDONLY)")
    prompt(f"second = {second}")
    read = [prompt("os.read(first, 3)"), prompt("os.read(second, 3)")]
    prompt.close()
    return read


def _starts_anew(read: list[str]) -> bool:
    return read == ["b'abc'", "b'abc'"]


def _offsets(world: World) -> None:
    world.section("offsets", "同じファイルを2回開く")
    world.say("1つ目のfdで3バイト読んだ後、2つ目のfdで読みます。")
    read = _read_twice(world, "os.open('vol/text', os.O_RDONLY)")
    world.fact("own-open-own-offset", _starts_anew(read), seen="どちらも先頭のabcを読んだ")


def _used(world: World) -> str:
    """Show how full the file system is."""
    return world.do("df -h vol").find(r"^lab +16M +(\S+)")[1]


def _big_file(world: World) -> None:
    world.do("rm -f vol/*; head -c 8M /dev/zero > vol/big")


def _narrow(text: str) -> str:
    """Leave the user and the device out of lsof's table, and with them the columns' widths."""
    return re.sub(" +", " ", re.sub(r"(?<=\d) +\S+( +\d+r +REG) +\S+", r" …\1 …", text))


def _deleted_but_open(world: World) -> None:
    world.section("deleted-but-open", "開いたままのファイルを消す")
    world.say("8 MiBのファイルを作り、Pythonで開いたまま消します。")
    _big_file(world)
    prompt = world.python()
    prompt("log = open('vol/big')")
    world.do("rm vol/big")
    world.say("名前をたどって数えるduは減りますが、領域を数えるdfは減りません。")
    named = world.do("du -sh vol").text.split()[0]
    used = _used(world)
    holds = (named, used) == ("0", "8.0M")
    world.fact("open-file-keeps-its-space", holds, seen=f"duは{named}、dfは{used}")
    world.say("`lsof +L1`は、名前のなくなった（リンク数が1に満たない）ファイルを探します。")
    world.do("lsof -a +L1 /tmp/lab/vol 2>/dev/null", until="deleted", show=_narrow)
    prompt("log.close()")
    used = _used(world)
    world.fact("closing-gives-the-space-back", used == "0", seen=f"閉じた後のdfは{used}")


def _create_many(world: World) -> bool:
    """Create more files than a small file system has inodes; return whether that failed."""
    world.do("rm -f vol/*")
    done = world.do("touch vol/{1..30} 2>&1 | head -n 1", show=cut(r"\d+(?=')"))
    return done.has("No space left on device")


def _inodes(world: World) -> None:
    world.section("inodes", "inodeを使い切る")
    world.say("volのinodeは20個です。空のファイルを30個作り、最初のエラーを見ます。")
    failed = _create_many(world)
    world.say("領域（df）は余っていますが、inode（df -i）は残っていません。")
    used = _used(world)
    free = world.do("df -i vol").find(r"^lab +20 +\d+ +(\d+)")[1]
    holds = failed and (used, free) == ("0", "0")
    seen = f"領域の使用は{used}、残りのinodeは{free}、エラーはNo space left on device"
    world.fact("inodes-run-out", holds, seen=seen)


def _holes(world: World, fill: str) -> tuple[str, str]:
    """Make a file of 8 MiB; return its size in bytes and what it occupies."""
    world.do("rm -f vol/*")
    world.do(f"{fill} vol/holes")
    size = world.do("stat -c %s vol/holes").text.strip()
    return size, world.do("du -h vol/holes").text.split()[0]


def _is_sparse(figures: tuple[str, str]) -> bool:
    return figures == ("8388608", "0")


def _sparse(world: World) -> None:
    world.section("sparse", "穴のあるファイルを作る")
    world.say("何も書かずにサイズだけを8 MiBにし、サイズ（stat）と使っている領域（du）を比べます。")
    figures = _holes(world, "truncate -s 8M")
    seen = f"サイズは{figures[0]}バイト、領域は{figures[1]}"
    world.fact("sparse-file-takes-no-space", _is_sparse(figures), seen=seen)


def _mode(world: World, umask: str) -> str:
    """Return the mode of a file that touch, which asks for 666, creates under a umask."""
    return world.do(f"umask {umask}; touch vol/new; stat -c %a vol/new").text.strip()


def _remove(world: World, directory: str, file: str) -> Done:
    """Try to remove a file, with modes for its directory and itself, without privileges."""
    world.do(f"mkdir -p vol/d; touch vol/d/f; chmod {file} vol/d/f; chmod {directory} vol/d")
    done = world.do(f"{_UNPRIVILEGED} rm -f vol/d/f", code=None)
    world.do("ls vol/d")
    return done


def _permissions(world: World) -> None:
    world.section("permissions", "umaskと、消す権限を確かめる")
    world.say("touchは、666（rw-rw-rw-）で作るように頼みます。umaskを027にしてみます。")
    world.do("rm -f vol/*")
    mode = _mode(world, "027")
    world.fact("umask-takes-bits-away", mode == "640", seen=f"666から027が落ちて{mode}")
    world.say("ディレクトリが書き込み禁止（555）なら、書けるファイル（666）も消せません。")
    world.say("ここには特権があり、権限の検査が効きません。setprivで特権を捨てて試します。")
    denied = _remove(world, "555", "666").has("Permission denied")
    world.say("逆に、ディレクトリに書ければ（755）、書き込み禁止のファイル（444）も消せます。")
    world.do("chmod 755 vol/d")
    allowed = _remove(world, "755", "444").code == 0
    seen = "666のファイルはPermission denied、444のファイルは消えた"
    world.fact("directory-decides-deletion", denied and allowed, seen=seen)


def _replace(world: World, command: str) -> str:
    """Replace a file that is open; return what the one who opened it reads."""
    world.do("echo old > vol/conf")
    prompt = world.python()
    prompt("conf = open('vol/conf')")
    world.do(command)
    world.do("cat vol/conf")
    read = prompt("conf.read()")
    prompt.close()
    return read


def _rename(world: World) -> None:
    world.section("rename", "開かれているファイルをrenameで置き換える")
    world.say(
        "別名で書き終えてから、mv（rename）で置き換えます。途中まで書かれた中身は見えません。"
    )
    read = _replace(world, "echo new > vol/conf.tmp && mv vol/conf.tmp vol/conf")
    holds = "old" in read
    seen = f"新しく開けばnew、前から開いていた側は{read}"
    world.fact("rename-leaves-open-files-alone", holds, seen=seen)


def _open_many(world: World, limit: int, raises: str) -> str:
    prompt = world.python()
    prompt("import resource")
    prompt(f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))")
    return prompt("files = [open('/dev/null') for _ in range(30)]", raises=raises)


def _too_many(world: World) -> None:
    world.section("too-many", "fdの上限に達する")
    world.say("上限を20個（シェルならulimit -n 20）にして、30個開きます。")
    answer = _open_many(world, 20, "OSError")
    world.fact("emfile-at-the-limit", "Too many open files" in answer, seen=answer)


def control(world: World) -> None:
    """Take the causes away: copies, names that stay, more inodes, data, bits, higher limits."""
    _set_up(world, inodes=100)
    _copies(world)
    _duplicate(world)
    _last_descriptor(world)
    _enough_inodes(world)
    _data_instead_of_holes(world)
    _bits_that_stay(world)
    _overwrite(world)
    _higher_limit(world)


def _copies(world: World) -> None:
    world.section("copies", "リンクの代わりに写す、名前を残す")
    world.do("echo hello > vol/a; cp vol/a vol/b; ln -s a vol/c")
    same = _same_inode(world)
    why = "cpで写せば、別のinodeになる"
    world.control("hard-link-is-the-same-inode", same, why=why, seen="inode番号が違う")
    missing = _is_missing(world.do("cat vol/c", code=None))
    why = "指す先の名前が残っていれば、シンボリックリンクから読める"
    world.control("symlink-breaks", missing, why=why, seen="helloを読めた")
    crosses = _crosses(world.do("ln vol/a vol/inside", code=None))
    why = "同じファイルシステムの中なら、ハードリンクを作れる"
    world.control("hard-link-stays-inside", crosses, why=why, seen="エラーなし")
    readable = world.do("rm vol/b; cat vol/b", code=1).text == "hello\n"
    why = "bがハードリンクのない唯一の名前なら、消すと読めない"
    seen = "No such file or directory"
    world.control("data-outlives-the-first-name", readable, why=why, seen=seen)


def _duplicate(world: World) -> None:
    world.section("duplicate", "開き直さずに、fdを複製する")
    read = _read_twice(world, "os.dup(first)")
    why = "複製したfdは位置を共有し、続きを読む"
    world.control("own-open-own-offset", _starts_anew(read), why=why, seen="2つ目はdefを読んだ")


def _last_descriptor(world: World) -> None:
    world.section("last-descriptor", "開かずに消す、fdを1つ残す")
    _big_file(world)
    world.do("rm vol/big")
    used = _used(world)
    why = "誰も開いていなければ、rmだけで領域が空く"
    world.control("open-file-keeps-its-space", used == "8.0M", why=why, seen=f"dfは{used}")
    _big_file(world)
    prompt = world.python()
    prompt("log, other = open('vol/big'), open('vol/big')")
    world.do("rm vol/big")
    prompt("log.close()")
    used = _used(world)
    why = "ほかにも開いているfdがあれば、閉じても空かない"
    world.control("closing-gives-the-space-back", used == "0", why=why, seen=f"dfは{used}")
    prompt("other.close()")


def _enough_inodes(world: World) -> None:
    world.section("enough-inodes", "inodeの多いファイルシステムに作る")
    failed = _create_many(world)
    why = "inodeが100個あれば、30個とも作れる"
    world.control("inodes-run-out", failed, why=why, seen="エラーなし")


def _data_instead_of_holes(world: World) -> None:
    world.section("data", "穴の代わりに0を書く")
    figures = _holes(world, "head -c 8M /dev/zero >")
    why = "0でも、書けば領域を使う"
    holds = _is_sparse(figures)
    world.control("sparse-file-takes-no-space", holds, why=why, seen=f"領域は{figures[1]}")


def _bits_that_stay(world: World) -> None:
    world.section("bits", "umaskを0にする、ディレクトリに書けるようにする")
    mode = _mode(world, "000")
    why = "umaskが0なら、何も落ちない"
    world.control("umask-takes-bits-away", mode == "640", why=why, seen=f"権限は{mode}")
    denied = _remove(world, "755", "666").has("Permission denied")
    why = "ディレクトリに書けるなら、同じファイルを消せる"
    world.control("directory-decides-deletion", denied, why=why, seen="消えた")


def _overwrite(world: World) -> None:
    world.section("overwrite", "置き換えずに、上書きする")
    read = _replace(world, "echo new > vol/conf")
    why = "上書きは同じinodeの中身を変えるので、開いている側にも見える"
    world.control("rename-leaves-open-files-alone", "old" in read, why=why, seen=read)


def _higher_limit(world: World) -> None:
    world.section("higher-limit", "fdの上限を上げる")
    answer = _open_many(world, 100, "")
    why = "上限が100なら、30個とも開ける"
    holds = "Too many open files" in answer
    world.control("emfile-at-the-limit", holds, why=why, seen="エラーなし")
