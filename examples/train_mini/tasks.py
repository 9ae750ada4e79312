"""The user's first message: many wordings of "make the tests pass"."""

from __future__ import annotations

from random import Random

_OPENINGS = (
    "", "", "", "", "", "Hi! ", "Hello, ", "Hey, ", "Good morning. ", "Quick one: ", "Urgent: ",
    "When you have time: ", "OK, ", "So, ",
    "I need help. ", "I'm stuck. ", "CI is red again. ", "The build broke this morning. ",
    "We release today. ", "I just pulled main. ",
    "My colleague changed something here and left for vacation. ", "I refactored this yesterday. ",
    "After the last merge things fail. ",
    "Context: a small project of mine. ", "This is a toy repository. ", "I inherited this code. ",
    "Please be careful. ",
)  # fmt: skip
_REQUESTS = (
    "Fix the failing tests.", "Make the failing test pass.", "Make the tests pass.",
    "Make the test suite green.", "The tests fail; fix the bug.",
    "Find the bug and fix it.", "There is a bug in this repository. Fix it.",
    "Please repair the code so that all tests pass.",
    "Some tests fail. Find out why and fix the code.", "Run the tests and fix what is broken.",
    "pytest fails. Repair it.",
    "Debug this project until all tests pass.",
    "One of the functions is wrong. The tests show which. Fix it.", "Get the tests to pass again.",
    "The test suite is red, make it green.",
    "Something is off in the code; the tests catch it. Please fix the code, not the tests.",
    "Please find the error and correct it.", "Fix this repo.", "Repair the failing code.",
    "There's a regression. Track it down and fix it.",
    "A one-line bug slipped in. Find it.", "Solve the failing test in this project.",
    "Could you fix the failing tests?",
    "Can you find out why the tests fail and fix it?", "Would you please make the suite pass?",
    "I want all tests to pass. Do what is needed in the source.",
    "Work on the repository until `pytest` is green.", "Please look into the failing tests.",
    "Investigate the test failures and correct the source.",
    "Tests are failing, fix the implementation.",
    "The implementation has a mistake. Correct it so that the tests pass.",
    "Correct the bug.", "Fix the bug.", "fix it", "fix tests", "make tests pass", "tests broken, pls fix",
    "help, tests fail", "bug!! fix",
    "Please fix.", "Do a bug hunt: one bug, tests included.", "Fix the code in this workspace.",
    "Restore the green state of this project.",
    "Resolve the failing assertions.", "Please do the minimal change that makes the tests pass.",
    "Make a small fix so that pytest succeeds.",
    "Identify the faulty line and correct it.",
    "The unit tests do not pass. Please change the code so that they do.",
    "Check the tests, then fix the code.", "Diagnose and repair.", "Our tests found a defect. Remove it.",
    "Sort out the failing tests.",
    "Something returns wrong results here. Fix it.",
    "The results are wrong somewhere. Tests know where. Fix the source code.",
    "Run pytest and fix the failure.", "Run `python -m pytest` and get rid of the failures.",
    "Find and fix the defect in the source files.",
    "Get this back to green.", "Take care of the failing test.",
    "Please get rid of the error in the tests.", "Bring the tests back to life.",
)  # fmt: skip
_NAMED = (
    "`{f}` does not work. Fix it.", "{f} returns the wrong result. Please fix.", "There is a bug in {f}.",
    "The function {f} is broken, repair it.",
    "Make the tests of {f} pass.", "Tests of `{f}` fail, find out why.", "{f} misbehaves, see the tests.",
    "Fix {f}.", "Fix `{f}` so that its tests pass.",
    "I think {f} has a mistake.", "Why does {f} fail? Fix it please.",
    "Something in {f} (or what it calls) is wrong.", "Correct `{f}`.",
    "{t} fails. Make it pass.", "`{t}` is red, fix the code.", "Fix the failing test {t}.",
    "Please make {t} pass.", "The test {t} fails since yesterday.",
    "pytest says {t} failed. Fix the bug.", "Look at {t}: it should pass.",
    "Get {t} to pass without touching the tests.",
    "There is a bug in {m}.", "The code in {m} is broken. Fix it.", "Fix the bug in {m}.",
    "Something in {m} is wrong, the tests fail.",
    "Check {m}, the tests for it fail.", "{m} has a bug. Please repair it.",
    "Tests in {p} fail. Fix the code.", "{p} is red. Make it green.",
    "Make {p} pass.", "All tests in {p} should pass.",
)  # fmt: skip
_FOREIGN = (
    "Die Tests schlagen fehl. Bitte behebe den Fehler.",
    "Bitte repariere den Code, damit alle Tests durchlaufen.", "Finde den Fehler und behebe ihn.",
    "Ein Test ist rot, mach ihn grün.", "In {m} steckt ein Fehler. Behebe ihn.",
    "{f} liefert falsche Ergebnisse. Bitte korrigieren.",
    "Les tests échouent. Corrige le bug.", "Corrige {f} pour que les tests passent.",
    "Los tests fallan, arregla el código.", "Hay un error en {m}. Arréglalo.",
    "I test falliscono: correggi il codice.", "Os testes falham. Corrija o erro.", "请修复失败的测试。",
    "テストが失敗します。修正してください。",
)  # fmt: skip
_CLOSINGS = (
    "", "", "", "", "", "", "", " Thanks!", " Thank you.", " Please keep the change small.",
    " Don't touch the tests.", " Do not change the tests.",
    " Only change the source.", " It worked last week.", " No need to explain much.", " Be quick.",
    " The rest should be fine.", " Tell me what you changed.",
    " I have no idea where it comes from.", " It is probably something small.",
    " Python 3 only, no new dependencies.", " Don't reformat the file.",
    " Then stop.", " That's all.", " The lunch menu today is soup, by the way.", " I'll review it later.",
    " Commit nothing.",
)  # fmt: skip


def draw_task(rng: Random, function: str, test: str, module: str, test_path: str) -> str:
    """Draw a task text.

    Args:
        rng: Source of randomness.
        function: Name of the function under test.
        test: Name of a failing test.
        module: Path of the file with the bug.
        test_path: Path of the failing test file.
    """
    kind = rng.random()
    if kind < 0.25:
        request = rng.choice(_NAMED)
    elif kind < 0.29:
        request = rng.choice(_FOREIGN)
    else:
        request = rng.choice(_REQUESTS)
        if rng.random() < 0.08:
            request += " " + rng.choice(_NAMED)
    text = request.format(f=function, t=test, m=module, p=test_path)
    if kind >= 0.29 or rng.random() < 0.3:
        text = rng.choice(_OPENINGS) + text + rng.choice(_CLOSINGS)
    style = rng.random()
    if style < 0.1:
        text = text.lower() if function == function.lower() else text
    elif style < 0.14:
        text = text.rstrip(".!")
    elif style < 0.19 and "`" not in text and kind >= 0.29:
        text = _mistyped(text, rng)
    elif style < 0.21:
        text = text.upper() if kind >= 0.29 else text
    return text


def _mistyped(text: str, rng: Random) -> str:
    letters = list(text)
    for _ in range(rng.randint(1, 2)):
        i = rng.randrange(1, max(2, len(letters) - 1))
        if letters[i].isalpha() and letters[i - 1].isalpha():
            if rng.random() < 0.5:
                letters[i - 1], letters[i] = letters[i], letters[i - 1]
            else:
                del letters[i]
    return "".join(letters)
