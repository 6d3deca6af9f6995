"""Files that would take a reader's memory or time: one clear line, at once."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from gatebook.config.files import MAX_YAML_MIB, parse_yaml, read_file, read_yaml
from gatebook.errors import BadInput

NINE = "\n".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]" for n in range(8))
MERGES = "\n".join(f"{chr(98 + n)}: &{chr(98 + n)} {{<<: [{', '.join([f'*{chr(97 + n)}'] * 9)}]}}" for n in range(8))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"a: &a [x, x, x, x, x, x, x, x, x]\n{NINE}", "holds more than 1,000,000 values once its aliases are written out"),
        (f"a: &a {{x: 1}}\n{MERGES}", "holds more than 1,000,000 values once its aliases are written out"),
        ("a: &a [*a]", "an alias stands in what it stands for"),
        ("a: &a {b: [1, *a]}", "an alias stands in what it stands for"),
        ("a: 1" + ":1" * 100_000, "a number of 200,001 characters"),
        ("a: 1" + ":1" * 1_000 + ".5", "a number of 2,003 characters"),
        ("a: 0x" + "f" * 5_000, "a number of 5,002 characters"),
        ("a: !!int ''", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: 1\nb: 2027-13-31", "x.yaml, line 2: not valid YAML: '2027-13-31' is no date \\(month must be in 1..12\\)"),
        ("[" * 2_000, "nested deeper than can be read"),
    ],
)  # fmt: skip
def test_yaml_that_stands_for_more_than_it_says_is_refused_at_once(text: str, said: str) -> None:
    began = time.process_time()
    with pytest.raises(BadInput, match=said):
        parse_yaml(text, "x.yaml")
    assert time.process_time() - began < 10


def test_an_alias_that_is_written_in_earnest_is_read() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\nd: 1:30\ne: 1.5\nf: 0x10", "x") == {
        "a": {"x": 1}, "b": {"x": 1}, "c": {"x": 1, "y": 2}, "d": 90, "e": 1.5, "f": 16,
    }  # fmt: skip


def test_a_file_is_read_up_to_its_limit_and_a_pipe_not_at_all(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate((MAX_YAML_MIB << 20) + 1)
    with pytest.raises(BadInput, match=r"large.yaml: has 4,194,305 bytes; 4 MiB at most are read"):
        read_yaml(large)
    assert len(read_file(large, MAX_YAML_MIB + 1)) == (MAX_YAML_MIB << 20) + 1
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(BadInput, match="is no regular file"):
            read_yaml(path)
    with pytest.raises(BadInput, match="is a folder"):
        read_yaml(tmp_path)
    (tmp_path / "wide.yaml").write_text("a: 1", encoding="utf-16")
    with pytest.raises(BadInput, match="iconv -f UTF-16 -t UTF-8 wide.yaml"):
        read_yaml(tmp_path / "wide.yaml")
