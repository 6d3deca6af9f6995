"""A slice of `make fuzz`, and that the fuzzer sees what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.drive import prepared, tried

pytestmark = pytest.mark.timeout(1800)  # a minute on a quiet machine
SLICE = 100


def test_a_slice_of_hostile_bundles_profiles_and_cases(server: str, tmp_path: Path) -> None:
    project, base = prepared(tmp_path, server)
    found = tried(project, base, "slice", range(SLICE))
    assert not found.troubles, "\n".join([str(found), *found.troubles])
    assert found.became.total() == SLICE
    assert {what.split(":")[0] for what in found.became} == {"bundle", "profile", "cases"}
    assert found.became["bundle: refused"] > SLICE / 2
