"""What a file says of itself, checked before a decoder believes it.

Films come from strangers. A file of a few kilobytes can ask its decoder for gigabytes, or keep it
busy for hours: data behind the last pixel, thousands of scans, a header without end. So can a
file of weights or of settings; and a name can hold what a terminal or a spreadsheet obeys. Nothing
here decodes a pixel, and whatever is wrong is a ValueError that says so.
"""

from __future__ import annotations

import re
import zlib

MOST_DECODED = 256_000_000  # bytes of an image's pixels, as they lie in memory
MOST_SCANS = 50  # of a progressive JPEG, which usually has 10; each passes over all pixels
MOST_CHUNKS = 100  # of a PNG, besides those of pixels
MOST_SEGMENTS = 1000  # of a JPEG's header
MOST_JUNK = 100_000  # bytes between the parts of a header
MOST_YAML = 250_000  # characters; ten times the course's longest file, and seconds to read
MOST_BRACKETS = 100  # of YAML, open at once; the time to read them grows with their square

_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    **dict.fromkeys([b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"], "TIFF"),
}


def kind_of(content: bytes) -> str:
    """Name of the format by a file's first bytes: PNG, JPEG, GIF, BMP, TIFF, WEBP, or ""."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for start, kind in _STARTS.items() if content.startswith(start)), "")


def is_animated_webp(content: bytes) -> bool:
    """Read the flag of an extended WebP file."""
    return content[12:16] == b"VP8X" and len(content) > 20 and bool(content[20] & 2)


def png_size(content: bytes) -> int:
    """Bytes that the pixels of a PNG take; a ValueError if too many."""
    width, height = (int.from_bytes(content[place : place + 4], "big") for place in (16, 20))
    channels = {2: 3, 4: 2, 6: 4}.get(content[25], 1)
    size = width * height * channels * (2 if content[24] == 16 else 1)
    check_size(size)
    return size


def check_size(size: int) -> None:
    """Complain about pixels that take too much memory."""
    if size > MOST_DECODED:
        raise ValueError(
            f"its pixels take {size / 1e6:.0f} MB, more than {MOST_DECODED // 10**6} MB: "
            "save it as grey values, or scale it down"
        )


def chunks(content: bytes):
    """Give the chunks of a PNG up to its end: the kind of each, its data and its check sum."""
    place, kind = 8, b""
    while place + 8 <= len(content) and kind != b"IEND":
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        kind = content[place + 4 : place + 8]
        check_sum = int.from_bytes(content[end : end + 4], "big")
        yield kind, memoryview(content)[place + 8 : end], check_sum
        place = end + 4


def check_chunks(content: bytes) -> None:
    """Complain about a PNG with a wrong check sum, without an end, or of very many chunks.

    Decoders fill what is cut off or damaged without a word. Chunks of pixels may be many, but
    not tiny.
    """
    others = pixels = 0
    kind = b""
    for kind, data, check_sum in chunks(content):
        others, pixels = others + (kind != b"IDAT"), pixels + (kind == b"IDAT")
        if others > MOST_CHUNKS or pixels > 1000 + len(content) // 1024:
            raise ValueError("its parts are too many")
        if check_sum != zlib.crc32(data, zlib.crc32(kind)):
            raise ValueError(f"the part {kind.decode('latin1')!r} is broken")
    if kind != b"IEND":
        raise ValueError("its end is missing")


def check_surplus(content: bytes, size: int) -> None:
    """Complain about a PNG that holds more than `size` bytes of pixels."""
    inflate, unpacked = zlib.decompressobj(), 0
    for kind, rest, _ in chunks(content):
        while kind == b"IDAT" and len(rest):
            unpacked += len(inflate.decompress(rest, 1 << 20))
            rest = inflate.unconsumed_tail
            if unpacked > size:
                raise ValueError("it holds more than its pixels")


def check_markers(content: bytes) -> None:
    """Complain about a JPEG whose header does not end, or that has very many scans."""
    place = junk = 0
    one_scan = False
    for _ in range(MOST_SEGMENTS):
        after = content[place : place + MOST_JUNK]
        skipped = after.find(b"\xff")  # before it is junk, and a second 255 is filling
        filled = len(after) - len(after[skipped:].lstrip(b"\xff"))
        junk += filled
        if skipped < 0 or filled == len(after) or junk > MOST_JUNK:
            break
        place, marker = place + filled + 1, after[filled]
        if marker == 0xDA:  # the first scan begins
            if not one_scan and _scans(content) > MOST_SCANS:
                raise ValueError(f"it has more than {MOST_SCANS} scans")
            return
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:  # how it is coded
            grey = content[place + 7 : place + 8] == b"\1"
            one_scan = grey and marker in {0xC0, 0xC1}  # a decoder refuses a second one
        if marker > 1 and not 0xD0 <= marker <= 0xD9:  # the others have no length
            place += int.from_bytes(content[place : place + 2], "big")
    raise ValueError("its header has no end")


def _scans(content: bytes) -> int:
    import numpy as np

    seen = np.frombuffer(content, np.uint8)  # ten times faster than counting text
    return np.count_nonzero((seen[:-1] == 0xFF) & (seen[1:] == 0xDA))


def parse_yaml(text: str):
    """Read YAML as plain values; whatever is wrong is a ValueError.

    An alias (``*name``) may not stand in what another one names: nine such steps make a file of
    a few lines as large as a disk. Length and open brackets have a limit too.
    """
    import yaml

    if len(text) > MOST_YAML:
        raise ValueError(f"its text is {len(text)} characters long; give {MOST_YAML} at most")

    class Loader(yaml.SafeLoader):
        named = 0  # how many of the values that are being read have a name

        def fetch_flow_collection_start(self, token):
            if self.flow_level >= MOST_BRACKETS:
                raise RecursionError
            super().fetch_flow_collection_start(token)

        def compose_node(self, parent, index):
            if self.named and self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("an alias stands inside of what another alias names")
            has_name = self.peek_event().anchor is not None
            self.named += has_name
            try:
                return super().compose_node(parent, index)
            finally:
                self.named -= has_name

    try:
        value = yaml.load(text, Loader)
        repr(value)  # a number of more digits than Python words is none here
        return value
    except RecursionError:
        raise ValueError("its brackets stand too deep in each other") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:  # odd dates, numbers
        raise ValueError(str(error)[:500]) from error


def check_weights(path) -> None:
    """Complain about an HDF5 file that leads to other files, or unpacks to far more than its size.

    Keras would read what it leads to, and gigabytes of zeros that take a few kilobytes packed.
    """
    import h5py

    sizes = []

    def look(name):  # what it returns ends the visit
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            return f"{name!r} leads somewhere else"
        return None

    def weigh(name, found):
        if isinstance(found, h5py.Dataset):
            if found.is_virtual or found.external:
                return f"{name!r} leads to another file"
            sizes.append(found.size * found.dtype.itemsize)
        return None

    with h5py.File(path, "r") as file:
        wrong = file.visit_links(look) or file.visititems(weigh)
        packed = file.id.get_filesize()
    if wrong:
        raise ValueError(wrong)
    if sum(sizes) > 20 * packed + (1 << 20):
        raise ValueError(f"it unpacks to {sum(sizes) / 1e9:.1f} GB")


_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # what a spreadsheet reckons out


def harmless(value):
    """Put an apostrophe before text that a spreadsheet would take for a formula (OWASP's advice).

    :func:`original` takes it away again: the two are each other's opposite on every text.
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def original(value):
    """Take away what :func:`harmless` put there."""
    guarded = isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value)
    return value[1:] if guarded else value


def printable(text) -> str:
    r"""Word a text for a terminal: what would move its cursor or colour it is shown as ``\x1b``.

    Characters that turn the direction of writing, and bytes of a file's name that are no text,
    are shown so too.
    """
    return _UNSEEN.sub(lambda one: one[0].encode("unicode_escape").decode(), str(text))


_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
