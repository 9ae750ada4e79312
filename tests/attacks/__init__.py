"""An attack suite: real programs in real sandboxes that try to get out, judged by what the host sees.

`python -m tests.attacks [--provider P] [--json] [CASE...]` runs it; `pytest tests/attacks` runs each case as
a test. No case takes a program's word for its success: either the host finds a trace of its own (a changed
file, a visitor on a socket, a descriptor), or the program shows a secret that it could not have guessed.
"""
