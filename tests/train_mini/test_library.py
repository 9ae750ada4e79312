from __future__ import annotations

from pathlib import Path

import pytest

from examples.train_mini import library
from examples.train_mini.library import build_bank

GOOD = '''
def initials(text):
    """Return the first letters of the words."""
    return "".join(word[0].upper() for word in text.split() if word)
'''
ENDLESS = '''
def total(count):
    """Hang where no signal reaches it."""
    return sum(range(10 ** (13 + count % 2)))
'''


def test_a_file_whose_process_hangs_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LOST_AFTER", 8)
    jobs: list[tuple[str, str, bool]] = []
    for name, source in (("endless", ENDLESS), ("good", GOOD)):
        (tmp_path / f"{name}.py").write_text(source)
        jobs.append((str(tmp_path / f"{name}.py"), name, False))
    entries = build_bank(tmp_path / "bank.json.gz", workers=2, jobs=jobs)
    assert [entry.key for entry in entries] == ["good.initials"]
