"""Reading text files through the sandbox so that what is written back has the same bytes elsewhere."""

from __future__ import annotations

from dsv4agent.sandboxes import Sandbox
from dsv4agent.tools.file_view import binary_kind, decode_text
from dsv4agent.tools.refusal import Refusal

MAX_FILE_BYTES = 8 << 20


async def read_text(sandbox: Sandbox, path: str, shown: str) -> str:
    """Return a file's text; undecodable bytes become lone surrogates, which `encode_text` turns back.

    Args:
        sandbox: Where the file is.
        path: Absolute path.
        shown: The path as the model wrote it.

    Raises:
        OSError: As the kernel says inside the sandbox.
        Refusal: `too_large` or `binary_file`.
    """
    return text_of(await read_data(sandbox, path, shown), shown)


async def read_data(sandbox: Sandbox, path: str, shown: str) -> bytes:
    """Return a file's bytes.

    Raises:
        OSError: As the kernel says inside the sandbox.
        Refusal: `too_large`.
    """
    data = await sandbox.read_bytes(path, MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        size = (await sandbox.stat(path)).size
        raise Refusal("too_large", f"{shown} has {size} bytes; use bash with sed -n or grep")
    return data


def text_of(data: bytes, shown: str) -> str:
    """Return a file's bytes as text.

    Raises:
        Refusal: `binary_file`.
    """
    # A mark of UTF-16 counts like a NUL: some scripts have none in it.
    if b"\0" in data or data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Refusal(
            "binary_file", f"{shown} is {binary_kind(data)} of {len(data)} bytes; inspect it with bash"
        )
    return decode_text(data)


def encode_text(text: str) -> bytes:
    """Return the bytes of a file's text."""
    return text.encode("utf-8", "surrogateescape")
