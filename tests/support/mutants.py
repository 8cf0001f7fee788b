"""Damaged and hostile image files, the same ones for the same seed, and a process that reads them.

    python tests/support/mutants.py FOLDER     reads all files there: a line a file, and one on all

A reader that crashes takes its process with it, so the tests start one of these and look on.
"""

import io
import json
import re
import struct
import sys
import warnings
import zlib
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

KINDS = ("png", "jpg", "dcm", "tif", "other")
MEGABYTE = 1 << 20


def film(height=96, width=80, seed=0):
    """A blurred noise: compresses a little, as films do."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


# --- sound files, which the mutants are made from -----------------------------------------------


def _saved(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def sound_pngs():
    grey, colour = film(), np.dstack([film(seed=n) for n in range(4)])
    deep = grey.astype(np.uint16) * 16
    arrays = (grey, deep, colour[..., :3], colour, colour.astype(np.uint16) * 257)
    found = [cv2.imencode(".png", array)[1].tobytes() for array in arrays]
    plain = Image.fromarray(grey)
    found += [_saved(plain.convert(mode), format="PNG") for mode in ("P", "1", "LA")]
    found.append(_saved(plain, format="PNG", icc_profile=b"profile" * 40, dpi=(300, 300)))
    return found


def sound_jpegs():
    grey = Image.fromarray(film(200, 160))
    colour = Image.fromarray(np.dstack([film(200, 160, n) for n in range(3)]))
    found = [_saved(grey, format="JPEG"), _saved(colour, format="JPEG", subsampling=2)]
    found += [_saved(image, format="JPEG", progressive=True) for image in (grey, colour)]
    found.append(_saved(colour.convert("CMYK"), format="JPEG"))
    exif = Image.Exif()
    exif[0x0112] = 6
    found.append(_saved(grey, format="JPEG", exif=exif, restart_marker_blocks=4))
    return found


def dicom(pixels, syntax="1.2.840.10008.1.2.1", encapsulated=None, **elements):
    """A DICOM file as bytes, of a patient whose name, number and birthday are those of nobody."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = UID(syntax)
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    one.Rows, one.Columns = pixels.shape[:2]
    one.SamplesPerPixel, one.PixelRepresentation = 1, 0
    one.BitsAllocated = one.BitsStored = 8 * pixels.itemsize
    one.HighBit = one.BitsStored - 1
    one.PhotometricInterpretation = "MONOCHROME2"
    one.PixelData = encapsulate([encapsulated]) if encapsulated else pixels.tobytes()
    if encapsulated:
        one["PixelData"].VR = "OB"
        one["PixelData"].is_undefined_length = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in elements.items():
            setattr(one, name, value)
        buffer = io.BytesIO()
        one.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def sound_dicoms():
    from pydicom.dataset import Dataset

    deep, grey = film().astype(np.uint16) * 16, film()
    lut = Dataset()
    lut.LUTDescriptor = [256, 0, 16]
    lut.LUTData = struct.pack("<256H", *range(0, 65_536, 256))
    window = {"WindowCenter": 2000, "WindowWidth": 3000, "RescaleSlope": 1, "RescaleIntercept": 5}
    jpeg = _saved(Image.fromarray(grey), format="JPEG")
    return [
        dicom(deep, **window),
        dicom(deep, "1.2.840.10008.1.2"),  # implicit, little endian
        dicom(deep, "1.2.840.10008.1.2.1.99"),  # deflated
        dicom(grey, VOILUTSequence=[lut], PixelPaddingValue=0),
        dicom(grey, "1.2.840.10008.1.2.4.50", jpeg),
        dicom(grey, "1.2.840.10008.1.2.5", _run_lengths(grey)),
    ]


def _run_lengths(grey):
    """PackBits without a single run, behind the 64 bytes of its header."""
    rows = [bytes([len(row) - 1]) + row.tobytes() for row in grey]
    return struct.pack("<16I", 1, 64, *[0] * 14) + b"".join(rows)


def sound_tiffs():
    plain = Image.fromarray(film())
    deep = Image.fromarray(film().astype(np.uint16) * 16)
    colour = Image.fromarray(np.dstack([film(seed=n) for n in range(3)]))
    found = [_saved(image, format="TIFF") for image in (plain, deep, colour)]
    packed = ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    found += [_saved(plain, format="TIFF", compression=one) for one in packed]
    found.append(_saved(plain, format="TIFF", save_all=True, append_images=[plain]))
    found.append(_saved(Image.fromarray(film().astype(np.float32)), format="TIFF"))
    return [*found, tiff(film(), strip=1), tiff(film(), white=0)]


def sound_others():
    plain = Image.fromarray(film())
    colour = Image.fromarray(np.dstack([film(seed=n) for n in range(4)]))
    found = [_saved(plain, format=kind) for kind in ("BMP", "GIF", "WEBP")]
    found += [_saved(colour.convert("RGB"), format="BMP"), _saved(colour, format="WEBP")]
    found.append(_saved(plain, format="WEBP", lossless=True))
    found.append(_saved(plain, format="GIF", save_all=True, append_images=[plain.rotate(90)]))
    return [*found, run_length_bmp(film())]


def tiff(pixels, strip=None, white=1, **tags):
    """A grey TIFF as bytes, in strips of so many rows; `tags` (t322=...) are added, or replace."""
    height, width = pixels.shape
    strip = strip or height
    data = np.ascontiguousarray(pixels if white else np.iinfo(pixels.dtype).max - pixels).tobytes()
    count, size = -(-height // strip), strip * width * pixels.itemsize
    entries = {256: width, 257: height, 258: 8 * pixels.itemsize, 259: 1, 262: white, 277: 1}
    entries |= {278: strip, 273: [8 + n * size for n in range(count)], 279: [size] * count}
    entries |= {int(name[1:]): value for name, value in tags.items()}
    place = 8 + len(data)
    lists, rows = b"", b""
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, list) else [value]
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, lists = struct.pack("<I", place + len(lists)), lists + packed
        rows += struct.pack("<HHI", tag, 4, len(values)) + packed
    head = b"II*\0" + struct.pack("<I", place + len(lists))
    return head + data + lists + struct.pack("<H", len(entries)) + rows + bytes(4)


def run_length_bmp(pixels, width=None, codes=None):
    """A grey BMP of run lengths as bytes."""
    height = len(pixels)
    if codes is None:
        runs = [b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in pixels[::-1]]
        codes = b"".join(runs) + b"\0\1"
    palette = b"".join(bytes([n, n, n, 0]) for n in range(256))
    head = (40, width or pixels.shape[1], height, 1, 8, 1, len(codes), 0, 0, 256, 0)
    start = struct.pack("<2sIHHI", b"BM", 54 + 1024 + len(codes), 0, 0, 54 + 1024)
    return start + struct.pack("<IiiHHIIiiII", *head) + palette + codes


MAKERS = {
    "png": sound_pngs,
    "jpg": sound_jpegs,
    "dcm": sound_dicoms,
    "tif": sound_tiffs,
    "other": sound_others,
}


@cache
def sound(kind):
    """Sound files of a kind, as bytes."""
    return MAKERS[kind]()


# --- what is done to them -----------------------------------------------------------------------


def truncated(content, rng):
    return content[: rng.integers(0, len(content))]


def flipped(content, rng, within=None, most=40):
    data = bytearray(content)
    for place in rng.integers(0, min(len(data), within or len(data)), rng.integers(1, most)):
        data[place] ^= 1 << rng.integers(0, 8)
    return bytes(data)


def flipped_early(content, rng):
    return flipped(content, rng, within=400, most=4)


def overwritten(content, rng):
    start = rng.integers(0, len(content))
    length = int(rng.integers(1, 200))
    filling = [bytes(length), b"\xff" * length, rng.bytes(length)][rng.integers(0, 3)]
    return content[:start] + filling + content[start + length :]


def cut_out(content, rng):
    start = rng.integers(0, len(content))
    return content[:start] + content[start + rng.integers(1, 100) :]


def repeated(content, rng):
    start, end = sorted(rng.integers(0, len(content), 2))
    return content[:end] + content[start:end] * int(rng.integers(1, 20)) + content[end:]


def odd_number(content, rng):
    """One of the header's numbers becomes a value at the edge of its type."""
    size = int(rng.choice([2, 4, 8]))
    value = int(rng.choice([0, 1, -1, 1 << 15, 1 << 31, (1 << 31) - 1, 20_000]))
    order = str(rng.choice(["little", "big"]))
    data = (value % (1 << 8 * size)).to_bytes(size, order)
    place = int(rng.integers(0, min(len(content), 600)))
    return content[:place] + data + content[place + size :]


def wrong_header(content, rng):
    other = sound(str(rng.choice(KINDS)))[0]
    length = int(rng.choice([4, 8, 16, 132, 200]))
    return other[:length] + content[length:]


def repaired_png(content, rng):
    """A PNG file changed inside its chunks, whose check sums are right all the same."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += length + 12
    number = int(rng.integers(0, len(chunks)))
    kind, data = chunks[number]
    alone = sum(kind == b"IDAT" for kind, _ in chunks) == 1
    if kind == b"IDAT" and alone and rng.integers(0, 2):
        data = zlib.compress(overwritten(zlib.decompress(data), rng))
    elif data:
        data = [flipped, overwritten, cut_out, truncated][rng.integers(0, 4)](data, rng)
    chunks[number] = (kind, data)
    if rng.integers(0, 4) == 0:
        chunks.insert(int(rng.integers(0, len(chunks))), chunks[rng.integers(0, len(chunks))])
    return png(*chunks)


MUTATIONS = (
    *(truncated, flipped, flipped_early, overwritten, cut_out, repeated, odd_number),
    wrong_header,
)


def mutant(number, seed=0):
    """Make the file number `number`: its name, its content, and how it came about."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    made = bombs()
    if number < len(made):
        name, content = made[number]
        return f"{number:04}-bomb.{name.split('.')[1]}", content, name
    files = sound(kind)
    base = int(rng.integers(0, len(files)))
    content, told = files[base], [f"{kind} {base}"]
    for _ in range(int(rng.integers(1, 4))):
        usable = [*MUTATIONS, repaired_png] if kind == "png" and len(told) == 1 else MUTATIONS
        change = usable[int(rng.integers(0, len(usable)))]
        content = change(content, rng) or b"\0"
        told.append(change.__name__)
    ending = kind if rng.integers(0, 8) else str(rng.choice([*KINDS, "dicom"]))
    return f"{number:04}.{ending}", content, f"seed {seed}, file {number}: {', '.join(told)}"


# --- bombs --------------------------------------------------------------------------------------


def png(*chunks):
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        check = struct.pack(">I", zlib.crc32(kind + data))
        parts.append(struct.pack(">I", len(data)) + kind + data + check)
    return b"".join(parts)


def header(width, height, depth=8, colour=0, interlaced=0):
    return b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)


def zeros(size, wbits=15):
    """Deflate `size` zero bytes at once: one megabyte's blocks, again and again."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = squeeze.compress(bytes(MEGABYTE)) + squeeze.flush(zlib.Z_FULL_FLUSH)
    rest = squeeze.compress(bytes(size % MEGABYTE)) + squeeze.flush()
    body = block * (size // MEGABYTE) + rest
    check = struct.pack(">HH", size % 65_521, 1)  # Adler-32 of zeros
    return body if wbits < 0 else b"\x78\x9c" + body + check


@cache
def bombs():
    """Files that ask for far more time or memory than their own size: names and contents."""
    return [*_png_bombs(), *_jpeg_bombs(), *_dicom_bombs(), *_tiff_bombs(), *_other_bombs()]


def _png_bombs():
    end, big = (b"IEND", b""), zeros(10 << 30)
    small = (b"IDAT", zlib.compress(bytes(65 * 64)))
    yield "huge size.png", png(header(60_000, 60_000), small, end)
    yield "largest size.png", png(header(2**31 - 1, 2**31 - 1), small, end)
    yield "no width.png", png(header(0, 64), small, end)
    yield "much more data than pixels.png", png(header(64, 64), (b"IDAT", big), end)
    side = 7_900
    yield (
        "as large as allowed.png",
        png(header(side, side), (b"IDAT", zeros((side + 1) * side)), end),
    )
    row = 8 * side + 1
    deep = zeros(row * side)
    yield "large, 16 bits, opacity.png", png(header(side, side, 16, 6), (b"IDAT", deep), end)
    deep = zeros((2 * side + 1) * side)
    yield "large, 16 bits.png", png(header(side, side, 16), (b"IDAT", deep), end)
    large = zeros(9 * side * (side + 20))
    yield "large, interlaced.png", png(header(side, side, 16, 6, 1), (b"IDAT", large), end)
    texts = {"zTXt": b"note\0\0", "iTXt": b"note\0\1\0\0\0", "iCCP": b"colours\0\0"}
    for kind, before in texts.items():
        bomb = (kind.encode(), before + big)
        yield f"bomb in {kind}.png", png(header(64, 64), bomb, small, end)
        yield f"bomb in {kind} after the pixels.png", png(header(64, 64), small, bomb, end)
        many = [(kind.encode(), before + zeros(900_000))] * 500
        yield f"many bombs in {kind}.png", png(header(64, 64), *many, small, end)
    yield "a million chunks.png", png(header(64, 64), *[(b"tEXt", b"a\0")] * 300_000, small, end)
    frames = (b"acTL", struct.pack(">II", 2**31 - 1, 0))
    yield "frames without end.png", png(header(64, 64), frames, small, end)
    palette = (b"PLTE", bytes(3 * 256))
    yield "palette twice.png", png(header(64, 64, 8, 3), palette, palette, small, end)


def _jpeg_bombs():
    plain = sound("jpg")[0]
    frame = plain.index(b"\xff\xc0") + 5
    for name, height, width in (("huge", 65_500, 65_500), ("as large as allowed", 7_990, 7_990)):
        size = struct.pack(">HH", height, width)
        yield f"{name}.jpg", plain[:frame] + size + plain[frame + 4 :]
    for number, name in ((2, "grey"), (3, "colour")):
        slow = sound("jpg")[number]
        frame = slow.index(b"\xff\xc2") + 5
        scan, end = slow.rindex(b"\xff\xda"), slow.rindex(b"\xff\xd9")
        for side in (200, 2_000, 7_990):
            size = struct.pack(">HH", side, side)
            head = slow[:frame] + size + slow[frame + 4 : end]
            for count in (50, 3_000):
                content = head + slow[scan:end] * count + b"\xff\xd9"
                yield f"{count} scans, {name}, {side} x {side}.jpg", content
    yield "no end of markers.jpg", b"\xff\xd8" + b"\xff\xfe\0\2" * 500_000 + plain[2:]
    yield "fill bytes.jpg", b"\xff\xd8" + b"\xff" * 2_000_000 + plain[2:]
    yield "only the beginning, many times.jpg", plain[: len(plain) // 2] * 500


def _dicom_bombs():
    grey, deep = film(), film().astype(np.uint16)
    for rows, columns in ((60_000, 60_000), (0, 0), (7_990, 7_990), (96, 81), (1, 7_680)):
        yield f"{rows} x {columns}.dcm", dicom(grey, Rows=rows, Columns=columns)
    whole = dicom(deep, "1.2.840.10008.1.2.1.99")
    start = len(dicom(deep)) - deep.nbytes  # about; the data set follows the file's own header
    start = whole.index(b"1.2.840.10008.1.2.1.99") + 22
    yield "deflated bomb.dcm", whole[:start] + zeros(10 << 30, -15)
    side = 7_900
    zero = np.zeros((side, side), np.uint16)
    window = {"WindowCenter": 2000.5, "WindowWidth": 3000, "RescaleSlope": 1, "RescaleIntercept": 5}
    plain = dicom(zero, **window, PixelPaddingValue=1)
    yield "as large as allowed, deflated.dcm", _deflated(plain)
    wide = dicom(np.eye(3_260, dtype=np.uint32), **window, PixelPaddingValue=1)
    yield "as large as allowed, 32 bits.dcm", _deflated(wide)
    pixel_data = dicom(deep).rindex(b"\xe0\x7f\x10\x00OW")
    long = dicom(deep)[: pixel_data + 8]
    yield "longest element.dcm", long + struct.pack("<I", 0xFFFFFFFE) + deep.tobytes()
    yield "element without end.dcm", long + struct.pack("<I", 0xFFFFFFFF) + deep.tobytes()
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff"
    before = dicom(deep)[:pixel_data]
    nested = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + item * 50_000
    yield "sequences in sequences.dcm", before + nested
    yield "sequences in sequences, early.dcm", dicom(deep)[:start] + nested
    for name, frame in (("garbage", b"\xff" * 5000), ("nothing", b"\0\0")):
        for syntax in ("4.50", "4.57", "4.70", "4.80", "4.90", "4.91", "5", "4.201"):
            content = dicom(grey, f"1.2.840.10008.1.2.{syntax}", frame)
            yield f"{name} as {syntax}.dcm", content
    for side in (7_990, 13_000, 60_000):
        jpeg = sound("jpg")[0]
        frame = jpeg.index(b"\xff\xc0") + 5
        jpeg = jpeg[:frame] + struct.pack(">HH", side, side) + jpeg[frame + 4 :]
        yield f"JPEG of {side} inside.dcm", dicom(grey, "1.2.840.10008.1.2.4.50", jpeg)
    runs = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 400_000
    yield "run lengths without end.dcm", dicom(grey, "1.2.840.10008.1.2.5", runs)
    yield "letters for numbers.dcm", dicom(deep).replace(b"DS", b"LO") + b"x" * 7
    slope = {"RescaleSlope": "1e308", "RescaleIntercept": "1e308"}
    yield "largest slope.dcm", dicom(deep, **slope)
    yield "bits that are none.dcm", dicom(grey, BitsStored=0, HighBit=65_535, BitsAllocated=3)
    yield "frames.dcm", dicom(grey, NumberOfFrames=2**31 - 1)


def _tiff_bombs():
    small, side = film(64, 64), 7_900
    packed = {"t259": 8, "t278": side, "t273": 8, "t256": side, "t257": side}
    yield "huge.tif", tiff(small, t256=60_000, t257=60_000)
    yield "as large as allowed, raw.tif", tiff(small, t256=side, t257=side)
    for bits in (8, 16, 32):
        body = np.frombuffer(zeros(side * side * bits // 8), np.uint8).reshape(1, -1)
        deflated = tiff(body, **packed, t279=body.size, t258=bits)
        yield f"as large as allowed, {bits} bits.tif", deflated
    tile = {"t322": 60_000, "t323": 60_000, "t324": 8, "t325": 90_000, "t259": 8}
    yield "huge tile.tif", tiff(body, t256=64, t257=64, **tile)
    whole = tiff(np.zeros((1, 1 << 20), np.uint8), t256=64, t257=64)
    (start,) = struct.unpack("<I", whole[4:8])
    rows = [struct.pack("<HHII", tag, 7, 1 << 20, 8) for tag in range(40_000, 60_000)]
    kept = whole[start + 2 : -4]
    count = struct.pack("<H", len(kept) // 12 + len(rows))
    yield "the whole file in each tag.tif", whole[:start] + count + kept + b"".join(rows) + bytes(4)
    endless = bytearray(tiff(small))
    endless[-4:] = endless[4:8]  # the next page is this one
    yield "pages without end.tif", bytes(endless)
    many = {"t278": 1, "t273": [8] * 300_000, "t279": [64] * 300_000, "t257": 300_000}
    yield "many strips in one place.tif", tiff(small, **many)
    slow = sound("jpg")[2]
    scan, end = slow.rindex(b"\xff\xda"), slow.rindex(b"\xff\xd9")
    frame = slow.index(b"\xff\xc2") + 5
    size = struct.pack(">HH", 7_990, 7_990)
    slow = slow[:frame] + size + slow[frame + 4 : end] + slow[scan:end] * 3_000 + b"\xff\xd9"
    odd = np.frombuffer(slow, np.uint8).reshape(1, -1)
    jpeg = {"t259": 7, "t256": 7_990, "t257": 7_990, "t278": 7_990, "t279": len(slow)}
    yield "scans.tif", tiff(odd, **jpeg)


def _other_bombs():
    grey = film(64, 64)
    yield (
        "huge.bmp",
        run_length_bmp(grey[:1], 60_000).replace(
            struct.pack("<ii", 60_000, 1), struct.pack("<ii", 60_000, 60_000)
        ),
    )
    skip = b"\0\2\xff\xff" * 3_000
    yield "run lengths that skip.bmp", run_length_bmp(grey, 7_900, skip)
    yield "run lengths that skip, wide.bmp", run_length_bmp(grey[:32], 1_900_000, skip)
    yield (
        "as large as allowed.bmp",
        run_length_bmp(np.zeros((7_900, 1)), 7_900, b"\xff\7" * 250_000),
    )
    for kind, width in (("GIF", 60_000), ("GIF", 7_900)):
        whole = bytearray(_saved(Image.fromarray(grey), format=kind))
        whole[6:10] = struct.pack("<HH", width, width)
        yield f"{width} pixels wide.gif", bytes(whole)
        frame = whole.index(b",\0\0\0\0") + 5
        whole[frame : frame + 4] = struct.pack("<HH", width, width)
        yield f"a frame {width} pixels wide.gif", bytes(whole)
    frames = [Image.fromarray(np.roll(grey, n)) for n in range(9)]
    moving = _saved(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    yield "many frames.gif", moving[:-1] + moving[moving.index(b"!\xf9") : -1] * 500 + b";"
    for side in (4_000, 4_600, 16_383):
        image = Image.new("RGBA", (side, side), (9, 9, 9, 9))
        if side < 9_000:
            plain = _saved(image, format="WEBP", lossless=True, method=0)
            yield f"{side} pixels a side.webp", plain
    yield "huge.webp", plain.replace(plain[24:30], b"\xff\xff\xff\xff\xff\xff", 1)


def _deflated(plain):
    """Turn a file in explicit VR into a deflated one."""
    start = plain.index(b"1.2.840.10008.1.2.1\0") + 20
    syntax = plain.index(b"\x02\0\x10\0UI")
    group = plain.index(b"\x02\0\0\0UL\x04\0") + 8
    (length,) = struct.unpack("<I", plain[group : group + 4])
    meta = plain[:group] + struct.pack("<I", length + 2) + plain[group + 4 : syntax]
    meta += b"\x02\0\x10\0UI" + struct.pack("<H", 22) + b"1.2.840.10008.1.2.1.99"
    rest = plain[syntax + 8 + 20 : group + 4 + length]
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeeze.compress(plain[max(start, group + 4 + length) :]) + squeeze.flush()
    return meta + rest + body


# --- the process that reads them ----------------------------------------------------------------


def megabytes():
    """The most memory that this process has had so far."""
    # Not from getrusage: that begins with what the process had that started this one
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def write_all(folder, count, seed=0):
    """Write `count` files; return how each came about, by name."""
    recipes = {}
    for number in range(count):
        name, content, recipes[name] = mutant(number, seed)
        (folder / name).write_bytes(content)
    return recipes


def read_all(folder):
    """Read the files one by one, then all at once, and print what became of each."""
    from cxrlib import images

    paths, bad = sorted(folder.iterdir()), {}
    for path in paths:
        print(json.dumps({"reads": path.name}), flush=True)  # the last such line names a crash
        outcome = _read(images, path)
        print(json.dumps({"file": path.name, "outcome": outcome, "memory": megabytes()}))
        if outcome != "read":
            bad[str(path)] = outcome
    found = images.decode(paths, folder.parent / "decoded", side=32, progress=False)
    named = {str(paths[row]): text for row, text in found.failures.items()}
    unnamed = [path for path in bad if path not in named.get(path, "")]
    told = {"bad": len(bad), "unnamed": unnamed, "differ": sorted(set(bad) ^ set(named))}
    print(json.dumps(told | {"memory": megabytes()}), flush=True)


def _read(images, path):
    try:
        image = images.read_grey(path)
        return "read" if image.dtype == np.uint8 and image.ndim == 2 else "ODD ARRAY"
    except images.ImageError as error:
        return str(error) if path.name in str(error) else f"NAMELESS {error}"
    except BaseException as error:
        return f"ESCAPED {type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    read_all(Path(sys.argv[1]))
