from __future__ import annotations

from pathlib import Path

import pytest

from examples.train_mini import library
from examples.train_mini.library import build_bank

GOOD = '''
def first_letters(text):
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
    assert [entry.key for entry in entries] == ["good.first_letters"]


OF_EVALUATION = '''
def _slugify(text):
    """Join the words by dashes."""
    return "-".join(text.lower().split())
'''


def test_names_of_unseen_templates_stay_out(tmp_path: Path) -> None:
    for name, source in (("other", OF_EVALUATION.replace("_slugify", "dashed")), ("same", OF_EVALUATION)):
        (tmp_path / f"{name}.py").write_text(GOOD + "\n\n" + source)
    banks = {
        name: build_bank(
            tmp_path / "bank.json.gz", workers=1, jobs=[(str(tmp_path / f"{name}.py"), "m", False)]
        )
        for name in ("other", "same")
    }
    assert [entry.key for entry in banks["other"]] == ["m.dashed", "m.first_letters"]
    assert [entry.key for entry in banks["same"]] == ["m.first_letters"]
