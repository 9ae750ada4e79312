"""Chat encoding of DeepSeek-V4: rendering, tokenising without forgeable control tokens, parsing."""

from dsv4agent.encoding.anthropic_messages import render_anthropic_messages
from dsv4agent.encoding.api_request import RenderedRequest
from dsv4agent.encoding.chat_completions import render_chat_completions
from dsv4agent.encoding.completion import parse_message_from_completion_text
from dsv4agent.encoding.detokenizer import IncrementalDetokenizer
from dsv4agent.encoding.errors import (
    ApiRequestError,
    CompletionParseError,
    EncodingError,
    ProtocolError,
    TokenizerError,
)
from dsv4agent.encoding.events import (
    ArgumentDelta,
    CallClosed,
    CallOpened,
    Event,
    InvalidCall,
    Malformed,
    ParsedCall,
    ParsedMessage,
    ReasoningDelta,
    TextDelta,
    TruncatedCall,
    TurnEnd,
)
from dsv4agent.encoding.modes import (
    ContextWindowWarning,
    EncoderMode,
    SamplingDefaults,
    ThinkingMode,
    encoder_mode,
)
from dsv4agent.encoding.neutralise import Neutralised, neutralise_messages, neutralise_text
from dsv4agent.encoding.prompt import EncodedPrompt, EncodedSpan, encode_segments, encode_tokens
from dsv4agent.encoding.rendering import encode_messages, render_segments
from dsv4agent.encoding.revision import (
    DEFAULT_REVISION,
    DsmlTags,
    Revision,
    dsml_tags,
    revision_for_checkpoint,
)
from dsv4agent.encoding.segments import Segment, SegmentKind
from dsv4agent.encoding.stream_parser import StreamParser
from dsv4agent.encoding.tokenizer import Tokenizer

__all__ = [
    "DEFAULT_REVISION",
    "ApiRequestError",
    "ArgumentDelta",
    "CallClosed",
    "CallOpened",
    "CompletionParseError",
    "ContextWindowWarning",
    "DsmlTags",
    "EncodedPrompt",
    "EncodedSpan",
    "EncoderMode",
    "EncodingError",
    "Event",
    "IncrementalDetokenizer",
    "InvalidCall",
    "Malformed",
    "Neutralised",
    "ParsedCall",
    "ParsedMessage",
    "ProtocolError",
    "ReasoningDelta",
    "RenderedRequest",
    "Revision",
    "SamplingDefaults",
    "Segment",
    "SegmentKind",
    "StreamParser",
    "TextDelta",
    "ThinkingMode",
    "Tokenizer",
    "TokenizerError",
    "TruncatedCall",
    "TurnEnd",
    "dsml_tags",
    "encode_messages",
    "encode_segments",
    "encode_tokens",
    "encoder_mode",
    "neutralise_messages",
    "neutralise_text",
    "parse_message_from_completion_text",
    "render_anthropic_messages",
    "render_chat_completions",
    "render_segments",
    "revision_for_checkpoint",
]
