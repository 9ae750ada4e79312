"""Reasoning modes in each revision's terms."""

from __future__ import annotations

import warnings

import pytest

from dsv4agent.encoding import (
    ContextWindowWarning,
    EncodingError,
    Revision,
    SamplingDefaults,
    ThinkingMode,
    encode_messages,
    encoder_mode,
)

RENDERED = {
    Revision.V4_PREVIEW: ("", "", "Absolute maximum"),
    Revision.V4_0731: ("", "Absolute maximum", "Beyond maximum"),
    Revision.V4_1: ("", "Reasoning Effort: 75", "Reasoning Effort: 100"),
}


@pytest.mark.parametrize("revision", Revision)
def test_each_mode_renders_its_tier(revision: Revision) -> None:
    for mode, expected in zip(ThinkingMode, RENDERED[revision], strict=True):
        found = encoder_mode(mode, revision)
        text = encode_messages(
            [{"role": "user", "content": "q"}],
            found.thinking_mode,
            reasoning_effort=found.reasoning_effort,
            revision=revision,
        )
        assert expected in text
        assert ("Reasoning Effort" in text) == bool(expected)
        assert text.endswith("</think>" if mode is ThinkingMode.NON_THINK else "<think>")


def test_think_max_warns_in_a_small_window() -> None:
    with pytest.warns(ContextWindowWarning, match="393216"):
        encoder_mode("think-max", "v4-preview", window=128 * 1024)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder_mode("think-max", "v4-preview", window=384 * 1024)
        encoder_mode("think-high", "v4-preview", window=1024)
        encoder_mode("think-max", "v4-preview")


def test_unknown_names_are_typed_errors() -> None:
    with pytest.raises(EncodingError, match="think-max"):
        encoder_mode("ultra", "v4.1")
    with pytest.raises(EncodingError, match=r"v4\.1"):
        encoder_mode("think-max", "v5")


def test_sampling_defaults() -> None:
    assert SamplingDefaults() == SamplingDefaults(temperature=1.0, top_p=1.0)
