"""What is done to a bundle, a profile or a case file: one seed, one input."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests import forging

NESTED: Any = []
for _ in range(300):
    NESTED = [NESTED]
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, 10**18, -(10**18), 1e308, "", " ", "PASS", "pass", "watch", "../../x", "/etc/hostname", "a\u0000b", "\ud800",
    "\x1b[31m", "2026-01-01", "x" * 5000, [], {}, [[]], {"": ""}, NESTED, {"$text": "0" * 64, "$then": ""}, "(a", "\\", "💥" * 100,
]  # fmt: skip
RAW = [
    b"NaN",
    b"Infinity",
    b"1e999",
    b"[" * 50_000,
    b'{"a":' * 50_000,
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x00",
    b"9" * 5000,
    b"\n\n",
    b'"',
    b"}",
]
NAMES = [
    "conftest.py",
    "pandas.py",
    "x",
    "\x1b[2J",
    "-rf",
    "a\nb",
    "texts/SHA256SUMS",
    "é",
    "99_new.ipynb",
    "troubles.json",
    "01_health.similarity.json",
]


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def flip(dice: random.Random, data: bytes) -> bytes:
    made = bytearray(data or b" ")
    for _ in range(dice.choice((1, 1, 2, 8))):
        made[dice.randrange(len(made))] = dice.randrange(256)
    return bytes(made)


def cut(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] if dice.random() < 0.5 else data[at:]


def insert(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(RAW) + data[at + dice.choice((0, 0, 1, 5)) :]


def lines(dice: random.Random, data: bytes) -> bytes:
    rows = data.split(b"\n")
    at, other = dice.randrange(len(rows)), dice.randrange(len(rows))
    match dice.choice(("drop", "twice", "swap", "many")):
        case "drop":
            del rows[at]
        case "twice":
            rows.insert(other, rows[at])
        case "swap":
            rows[at], rows[other] = rows[other], rows[at]
        case _:
            rows[at:at] = [rows[at]] * 200
    return b"\n".join(rows)


TEXT: list[Callable[[random.Random, bytes], bytes]] = [flip, cut, insert, lines]


def value(dice: random.Random, data: Any) -> Any:
    """The data with one value in it replaced, taken out, added or renamed."""
    data = copy.deepcopy(data)
    here, way = data, []
    while isinstance(here, dict | list) and here and (not way or dice.random() < 0.85):
        key = dice.choice(list(here)) if isinstance(here, dict) else dice.randrange(len(here))
        way.append((here, key))
        here = here[key]
    if not way:
        return dice.choice(ODD)
    place, key = way[-1]
    match dice.choice(("odd", "odd", "odd", "delete", "twin", "rename", "other")):
        case "odd":
            place[key] = copy.deepcopy(dice.choice(ODD))
        case "delete":
            del place[key]
        case "twin" if isinstance(place, list):
            place.insert(dice.randrange(len(place) + 1), copy.deepcopy(place[key]))
        case "rename" if isinstance(place, dict):
            place[dice.choice(("x", "", "../../x", f"{key}2"))] = place.pop(key)
        case _:
            other = dice.choice(way)
            place[key] = copy.deepcopy(other[0][other[1]])
    return data


def in_json(dice: random.Random, file: Path) -> None:
    """One value of a JSON file, or of one line of it."""
    if not file.is_file():  # a pipe by now
        return
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    with suppress(ValueError, RecursionError):
        if file.suffix == ".jsonl":
            rows = text.splitlines()
            at = dice.randrange(len(rows)) if rows else 0
            rows[at : at + 1] = [json.dumps(value(dice, json.loads(rows[at])))] if rows else []
            text = "".join(f"{row}\n" for row in rows)
        else:
            text = json.dumps(value(dice, json.loads(text)))
    file.write_text(text, encoding="utf-8", errors="surrogateescape")


def in_files(dice: random.Random, bundle: Path) -> None:
    """A file comes, goes, or becomes something else."""
    file = dice.choice(files(bundle))
    match dice.choice(("add", "add", "remove", "link", "link in", "pipe", "folder", "swap", "deep", "big")):
        case "add":
            new = bundle / dice.choice(NAMES)
            new.parent.mkdir(exist_ok=True)
            new.write_bytes(dice.choice((b"", b"raise SystemExit('ran')\n", b"{}", b"[]", dice.choice(RAW))))
        case "remove":
            file.unlink()
        case "link":
            file.unlink()
            file.symlink_to("/etc/hostname")
        case "link in":
            (bundle / "more").symlink_to(bundle)
        case "pipe":
            file.unlink()
            os.mkfifo(file)
        case "folder":
            file.unlink()
            (file / "x").mkdir(parents=True)
        case "swap":
            other = dice.choice(files(bundle))
            one, two = file.read_bytes(), other.read_bytes()
            file.write_bytes(two)
            other.write_bytes(one)
        case "deep":
            (bundle / "/".join("d" * 400)).mkdir(parents=True)
        case _:
            with file.open("ab") as longer:
                longer.truncate(file.stat().st_size + (32 << 20))


def sums(bundle: Path) -> None:
    """Checksums over what stands there, whatever it is."""
    rows = sorted((p.relative_to(bundle).as_posix(), p) for p in files(bundle) if p.name != "SHA256SUMS")
    text = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n" for name, path in rows)
    (bundle / "SHA256SUMS").unlink(missing_ok=True)
    (bundle / "SHA256SUMS").write_bytes(os.fsencode(text))


def bundle_input(dice: random.Random, base: Path, made: Path) -> tuple[bool, bool]:
    """A bundle made from a green one; (whether its checksums were made anew, whether its records were chained anew)."""
    shutil.copytree(base, made)
    data = [p.relative_to(base) for p in files(base) if p.suffix in (".json", ".jsonl", ".ipynb")]
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        with suppress(OSError, IndexError):
            match dice.choice(("json", "json", "json", "text", "text", "files")):
                case "json":
                    in_json(dice, made / dice.choice(data))
                case "text":
                    file = dice.choice(files(made))
                    file.write_bytes(dice.choice(TEXT)(dice, file.read_bytes()))
                case _:
                    in_files(dice, made)
    resealed, chained = dice.random() < 0.6, False
    if resealed and dice.random() < 0.6 and all(p.is_file() or p.is_dir() for p in made.rglob("*")):
        with suppress(Exception):  # what cannot be chained or judged anew is left to the command under test
            forging.chain(made)
            chained = True
            forging.seal(made)
    if resealed:
        with suppress(OSError):
            sums(made)
    elif dice.random() < 0.1:
        with suppress(OSError):
            (made / "SHA256SUMS").unlink()  # a run that was killed: `report` writes into it
    return resealed, chained


def yaml_input(dice: random.Random, text: bytes) -> bytes:
    """A YAML file with something else in it, still one as often as not."""
    import yaml

    if dice.random() < 0.5:
        data = yaml.safe_load(text)
        for _ in range(dice.choice((1, 1, 3))):
            data = value(dice, data)
        with suppress(Exception):
            return yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass")
    for _ in range(dice.choice((1, 1, 3))):
        text = dice.choice(TEXT)(dice, text)
    return text
