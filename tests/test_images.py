import multiprocessing
import os
import re
import shutil
import signal
import sys
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

import mutants
from cxrlib import images, machine, phantom
from cxrlib.cohort import Rows
from cxrlib.images import ImageError, decode, read_grey, resize
from cxrlib.parallel import disk

RAMP = np.add.outer(np.arange(64) * 2, np.arange(48) * 2).astype(np.uint8)  # 64 x 48, 0..220


def write(path, array):
    cv2.imwrite(str(path), array, [cv2.IMWRITE_JPEG_QUALITY, 95])  # PNG overlooks the quality
    return path


def noisy(folder, name, **options):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(folder / name, **options)
    return folder / name


def decode_one(path, side):
    found = decode([path], side=side, progress=False)
    assert found.failures == {}
    return found.images[0].astype(float)


# --- what is read -------------------------------------------------------------------------------


def test_grey_png_is_read_as_it_is_whatever_its_name(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "Röntgen bild.jpg", format="PNG")
    np.testing.assert_array_equal(read_grey(tmp_path / "Röntgen bild.jpg"), RAMP)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bit_file_uses_the_range_of_its_detector(tmp_path, bits):
    top = 2**bits - 1
    values = np.full((40, 40), top, np.uint16)
    values[:, :20] = 0
    values[:20] //= 2
    grey = read_grey(write(tmp_path / "a.png", values))
    assert grey.max() == 255
    assert grey.min() == 0
    assert grey[0, 30] in {127, 128}


def test_sixteen_bit_colour_with_opacity(tmp_path):
    values = np.full((40, 40, 4), 65535, np.uint16)
    values[:20, :, :3] = 32768
    grey = read_grey(write(tmp_path / "a.png", values))
    assert set(np.unique(grey[:20])) <= {127, 128}
    assert (grey[20:] == 255).all()
    values[..., :3] >>= 4  # of a detector of 12 bits
    dark = read_grey(write(tmp_path / "a.png", values))
    assert (dark[:20] == 128).all() and (dark[20:] == 255).all()
    ramp = np.arange(1600, dtype=np.uint16).reshape(40, 40)  # the lower 8 bits are told apart
    dark = read_grey(write(tmp_path / "a.png", np.dstack([ramp] * 3)))
    np.testing.assert_array_equal(dark, np.rint(ramp * (255 / 4095)))
    header = mutants.header(64, 64, 16, 4)  # grey with opacity, of which Pillow keeps 8 bits
    pixels = (b"IDAT", zlib.compress((b"\0" + b"\0\x70\xff\xff" * 64) * 64))
    (tmp_path / "a.png").write_bytes(mutants.png(header, pixels, (b"IEND", b"")))
    with pytest.raises(ImageError, match=r"a\.png: its greys have few of 16 bits.*opacity"):
        read_grey(tmp_path / "a.png")


@pytest.mark.parametrize("side", [None, 64])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_colour_becomes_luminance(tmp_path, kind, side):
    colour = np.zeros((640, 640, 3), np.uint8)
    colour[..., 1] = 200  # green: 0.587 of the luminance (ITU-R BT.601)
    path = write(tmp_path / f"a.{kind}", colour)
    grey = decode_one(path, side) if side else read_grey(path).astype(float)
    assert np.abs(grey - 117).max() <= 1


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1"])
def test_colours_turn_grey_in_strips_as_at_once(tmp_path, monkeypatch, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (97, 113, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = image.convert("RGB").quantize(50) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "film.png")
    at_once = read_grey(tmp_path / "film.png")
    rgba = np.asarray(image.convert("RGBA")).astype(float)
    luma = rgba[..., :3] @ [0.299, 0.587, 0.114] * rgba[..., 3] / 255
    assert np.abs(at_once - luma).max() <= 1.01
    for strip in (1, 1000):
        monkeypatch.setattr(images, "STRIP", strip)
        np.testing.assert_array_equal(read_grey(tmp_path / "film.png"), at_once)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_agrees_with_another_decoder(tmp_path, progressive):
    path = tmp_path / "a.jpg"
    Image.fromarray(RAMP).save(path, quality=95, progressive=progressive)
    reference = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(int)
    assert np.abs(read_grey(path) - reference).max() <= 2


def test_jpeg_with_something_behind_it_or_damaged_exif_data_is_whole(tmp_path):
    image = read_grey(noisy(tmp_path, "a.jpg"))
    path = noisy(tmp_path, "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff rubbish")
    path.write_bytes(path.read_bytes() + b"\0\0 appended by a camera")
    np.testing.assert_array_equal(read_grey(path), image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_jpeg_is_turned_when_shrunk_too(tmp_path, orientation):
    picture = np.zeros((640, 960), np.uint8)
    picture[:320, :480], picture[:320, 480:] = 200, 100
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(picture).save(path, exif=exif, quality=95)
    whole = read_grey(path)
    found = decode([path], side=64, progress=False)
    assert images.shrinks_by(640, 960, 64) == 8
    assert np.abs(found.images[0].astype(int) - resize(whole, 64)).mean() < 2
    assert tuple(found.sizes[0]) == whole.shape == ((640, 960), (960, 640))[orientation > 4]
    upright = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(int)  # OpenCV turns it, too
    assert np.abs(upright - whole).max() <= 2


@pytest.mark.parametrize("shape", [(64, 48), (400, 640)])
@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP"])
def test_other_formats_are_read_whatever_their_names(tmp_path, kind, shape):
    truth = np.add.outer(np.arange(shape[0]), np.arange(shape[1])).astype(np.uint8)
    for name, pixels in (("a.png", truth), ("b.dcm", np.dstack([truth] * 3))):
        options = {"lossless": True} if kind == "WEBP" else {}
        if kind != "GIF" or name == "a.png":  # else its palette is not exact
            Image.fromarray(pixels).save(tmp_path / name, format=kind, **options)
            np.testing.assert_array_equal(read_grey(tmp_path / name), truth)
            assert images.read(tmp_path / name)[1:] == (kind, shape, [])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF", "WEBP"])
def test_the_first_of_several_frames_is_read_and_said(tmp_path, kind):
    first, then = (Image.fromarray(np.ascontiguousarray(one)) for one in (RAMP, 255 - RAMP))
    options = {"lossless": True} if kind == "WEBP" else {}
    first.save(tmp_path / "a", format=kind, save_all=True, append_images=[then], **options)
    with pytest.warns(UserWarning, match="a: the first of several frames or pages") as said:
        np.testing.assert_array_equal(read_grey(tmp_path / "a"), RAMP)
    assert said[0].filename == __file__


@pytest.mark.parametrize("packed", ["raw", "tiff_lzw", "tiff_deflate", "packbits"])
def test_sixteen_bit_tiff_is_scaled_as_png_is(tmp_path, packed):
    deep = RAMP.astype(np.uint16) * 18  # of 12 bits
    Image.fromarray(deep).save(tmp_path / "a.tif", compression=packed)
    grey = read_grey(tmp_path / "a.tif")
    np.testing.assert_array_equal(grey, np.rint(deep * (255 / 4095)))
    np.testing.assert_array_equal(grey, read_grey(write(tmp_path / "a.png", deep)))


def test_tiff_where_white_is_zero_of_other_types_and_turned(tmp_path):
    path = tmp_path / "a.tif"
    for kind in (np.uint8, np.uint16):
        top = np.iinfo(kind).max
        path.write_bytes(mutants.tiff(RAMP.astype(kind) * kind(top // 255), strip=5, white=0))
        np.testing.assert_array_equal(read_grey(path), RAMP)
    values = RAMP / 100.0 - 1
    stretched = np.rint(RAMP * (255 / 220))
    for array in (values.astype(np.float32), RAMP.astype(np.int32) - 100):
        Image.fromarray(array).save(path)
        assert np.abs(read_grey(path) - stretched).max() <= 1
    Image.fromarray(RAMP).save(path, tiffinfo={274: 6})  # to be turned by 90 degrees
    np.testing.assert_array_equal(read_grey(path), np.rot90(RAMP, -1))
    values[0, 0] = np.nan
    Image.fromarray(values.astype(np.float32)).save(path)
    with pytest.raises(ImageError, match=r"a\.tif: .*values are no numbers"):
        read_grey(path)


def test_bmp_of_run_lengths(tmp_path):
    (tmp_path / "a.bmp").write_bytes(mutants.run_length_bmp(np.tile(RAMP, (3, 3))))
    np.testing.assert_array_equal(read_grey(tmp_path / "a.bmp"), np.tile(RAMP, (3, 3)))


# --- what is refused, by name and with a remedy -------------------------------------------------


@pytest.mark.parametrize("kind", ["BMP", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_truncated_others(tmp_path, kind, part):
    content = noisy(tmp_path, "a", format=kind).read_bytes()
    (tmp_path / "a").write_bytes(content[: int(part * len(content))])
    with pytest.raises(ImageError, match=r"a: truncated or damaged.*Fetch it again"):
        read_grey(tmp_path / "a")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 123456\n"
LINK = "../../.git/annex/objects/Xk/0f/SHA256E-s6148--b5bb9d.png/SHA256E-s6148--b5bb9d.png"


@pytest.mark.parametrize("name", ["a.png", "a.dcm"])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (LFS.encode(), "Git LFS.*git lfs pull"),
        (LINK.encode(), "git-annex.*git annex get"),
        (b"/annex/objects/SHA256E-s6148--b5bb9d.png\n", "git-annex.*git annex get"),
        (b"\n <!DOCTYPE html><html><body>404</body></html>", "a web page.*Download it again"),
        (b"\xef\xbb\xbf<HTML><title>Sign in</title>", "a web page.*Download it again"),
        (b"PK\3\4\x14\0\0\0\x08\0", "an archive.*Unpack it"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "an archive.*Unpack it"),
        (b"a.png".ljust(257, b"\0") + b"ustar\x0000", "an archive.*Unpack it"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "a PDF.*Export"),
        (b"", "empty.*Fetch or export it again"),
        (bytes(5000), "nothing but zeros.*Fetch it again"),
        ("image,label\nröntgen.png,covid\n".encode(), "text, not an image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC.*Save it as PNG"),
        (b"\\\1\0\0" + b"\0" * 340 + b"n+1\0", "NIfTI.*Export the radiograph"),
        (b"\x93NUMPY\1\0", "an array.*Save it as PNG"),
        (b"P5\n# made by hand\n40 40\n255\n", "PNM.*Save it as PNG"),
        (b"P5 40 films\n", "text, not an image"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0", "old Office program.*CSV UTF-8"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "macOS.*take the file itself"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=rf"{re.escape(name)}: .*{told}"):
        read_grey(tmp_path / name)


@pytest.mark.parametrize("side", [None, 50])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.999])
def test_truncated_jpeg(tmp_path, part, progressive, side):
    path = noisy(tmp_path, "a.jpg", progressive=progressive)
    content = path.read_bytes()
    for fill in (b"", b"\0" * 500):
        path.write_bytes(content[: int(part * len(content))] + fill)
        with pytest.raises(ImageError, match=r"a\.jpg.*(truncated|damaged).*Fetch it again"):
            images.read(path, side)


@pytest.mark.parametrize("part", [0.001, 0.05, 0.5, 0.9, 0.9999])
def test_truncated_png(tmp_path, part):
    path = noisy(tmp_path, "a.png")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ImageError, match=r"a\.png.*(truncated|damaged|not an image)"):
        read_grey(path)


def test_png_with_a_wrong_check_sum_or_without_all_pixels(tmp_path):
    path = noisy(tmp_path, "a.png")
    content = path.read_bytes()
    sum_of_pixels = content.index(b"IEND") - 5  # the pixels themselves are whole
    wrong = bytearray(content)
    wrong[sum_of_pixels] ^= 0xFF
    middle = bytearray(content)
    middle[len(content) // 2] ^= 0xFF
    for damaged in (wrong, middle, content[: sum_of_pixels + 1], empty_png(500, 500)):
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match=r"a\.png: truncated or damaged.*Fetch it again"):
            read_grey(path)


def empty_png(width, height):
    """A PNG file without room for the pixels it announces."""
    pixels = (b"IDAT", zlib.compress(b"\0" * 1000))
    return mutants.png(mutants.header(width, height), pixels, (b"IEND", b""))


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 8_000), (2_000_000_000, 2)])
def test_too_many_pixels_are_refused_unread(tmp_path, size):
    (tmp_path / "a.png").write_bytes(empty_png(*size))
    with pytest.raises(ImageError, match=r"a\.png.*64 megapixels"):
        read_grey(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(1, 1), (300, 5), (31, 31)])
def test_too_small(tmp_path, size):
    path = write(tmp_path / "a.png", np.zeros(size, np.uint8))
    with pytest.raises(ImageError, match="too small to be a radiograph"):
        read_grey(path)


def test_what_would_keep_a_decoder_busy(tmp_path):
    """Each is refused for its own reason: the limits are not there by chance."""
    jpeg = noisy(tmp_path, "a.jpg", progressive=True).read_bytes()
    scan, end = jpeg.rindex(b"\xff\xda"), jpeg.rindex(b"\xff\xd9")
    pixels = (b"IDAT", zlib.compress(b"\0"))
    hostile = {
        "scans": jpeg[:scan] + jpeg[scan:end] * 60 + jpeg[end:],
        "no end, or its parts": jpeg[:2] + b"\xff\xfe\0\2" * 100_000 + jpeg[2:],
        "its header has no end": jpeg[:2] + b"\xff" * 400_000 + jpeg[2:],
        "its pixels take 480 MB": mutants.png(mutants.header(7900, 7600, 16, 6), pixels),
    }
    for reason, content in hostile.items():
        (tmp_path / "hostile").write_bytes(content)
        with pytest.raises(ImageError, match=rf"hostile: .*{reason}"):
            read_grey(tmp_path / "hostile")


def test_file_larger_than_any_image_is_refused_unread(tmp_path):
    path = noisy(tmp_path, "a.jpg")
    os.truncate(path, images.MOST_DECODED + 1)  # takes no room on the disk
    most = images.MOST_DECODED // 10**6
    with pytest.raises(ImageError, match=rf"a\.jpg: more than {most} MB is no radiograph"):
        read_grey(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("empty", "is empty"), ("text", "a web page"), ("gone", "no such"), ("folder", "no such")],
)
def test_empty_missing_folder_and_text(tmp_path, name, message):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("<html>not found</html>")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ImageError, match=rf"{name}\.png: .*{message}"):
        read_grey(tmp_path / f"{name}.png")


# --- resizing, and shrinking while reading ------------------------------------------------------


def test_resize_is_the_mean_of_the_pixels_it_joins():
    image = np.kron(np.array([[10, 20], [30, 40]], np.uint8), np.ones((100, 100), np.uint8))
    np.testing.assert_array_equal(resize(image, 2), [[10, 20], [30, 40]])
    checked = (np.indices((600, 600)).sum(0) % 2 * 200).astype(np.uint8)
    assert np.abs(resize(checked, 300).astype(int) - 100).max() <= 1


@pytest.mark.parametrize("shape", [(300, 300), (100, 500), (500, 100), (40, 60)])
def test_resize_gives_a_square(shape):
    image = resize(np.full(shape, 77, np.uint8), 300)
    assert image.shape == (300, 300)
    assert (image == 77).all()


@pytest.mark.parametrize("side", [224, 300])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_fine_rings_vanish_and_coarse_ones_stay(tmp_path, kind, side):
    """A zone plate: `distance` pixels off its centre the rings have distance / side cycles a
    pixel of the result, so those beyond 1 cannot be shown, and must not turn into moiré.
    """
    size = (1001, 963)
    rows, columns = np.ogrid[: size[0], : size[1]]
    squared = (rows - size[0] / 2) ** 2 + (columns - size[1] / 2) ** 2
    rings = np.rint(127.5 + 127.5 * np.cos(np.pi * squared / max(size))).astype(np.uint8)
    path = write(tmp_path / f"a.{kind}", rings)
    found, whole = decode_one(path, side), resize(read_grey(path), side).astype(float)
    distance = np.hypot(*np.meshgrid(*[np.arange(side) + 0.5 - side / 2] * 2)) * max(size) / side
    fine, coarse = distance > 1.1 * side, distance < 0.15 * side
    every = cv2.resize(rings, (side, side), interpolation=cv2.INTER_NEAREST)
    assert every[fine].std() > 80  # moiré: what leaving pixels out makes of it
    assert found[fine].std() < 14
    assert np.corrcoef(found[coarse], whole[coarse])[0, 1] > 0.985


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("side", [150, 300])
def test_a_radiograph_is_the_same_shrunk_or_read_whole(tmp_path, kind, side):
    film = phantom.render("covid", size=300).image
    film = cv2.resize(film, (1023, 962), interpolation=cv2.INTER_CUBIC)
    path = write(tmp_path / f"a.{kind}", film)
    away = np.abs(decode_one(path, side) - resize(read_grey(path), side))
    assert away.mean() < 1  # grey levels; more only where letters have sharp edges
    assert np.percentile(away, 99) <= 4


def test_shrinking_stays_above_the_side_and_within_a_third_of_a_pixel():
    rng = np.random.default_rng(0)
    used = set()
    for height, width, side in rng.integers([32, 32, 16], [5000, 5000, 600], (3000, 3)).tolist():
        scale = images.shrinks_by(height, width, side)
        used.add(scale)
        if scale > 1:
            assert min(height, width) // scale >= side
            for length in (height, width):
                covered = -(-length // scale) * scale  # by the blocks of the shrunk image
                assert (covered - length) / length * side <= 1
    assert used == {1, 2, 4, 8}


# --- DICOM --------------------------------------------------------------------------------------


def dicom(path, pixels, **elements):
    pytest.importorskip("pydicom")
    path.write_bytes(mutants.dicom(pixels, **elements))
    return path


def test_dicom_is_scaled_from_darkest_to_brightest(tmp_path):
    pixels, shown = RAMP.astype(np.uint16) * 10 + 500, np.rint(RAMP * (255 / 220))
    np.testing.assert_array_equal(read_grey(dicom(tmp_path / "a.dcm", pixels)), shown)
    inverted = dicom(tmp_path / "a.dcm", pixels, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_grey(inverted), 255 - shown)


def test_dicom_without_ending_is_recognised_and_shrinks(tmp_path):
    path = dicom(tmp_path / "IM0001", np.tile(RAMP, (4, 4)))
    image, *said = images.read(path, 48)
    assert (image.shape, *said) == ((64, 48), "DICOM", (256, 192), [])


def test_dicom_window_and_rescale(tmp_path):
    pixels = np.repeat(np.arange(0, 400, 10, dtype=np.uint16)[None], 40, 0)
    window = {"WindowCenter": 1100, "WindowWidth": 200, "RescaleSlope": 1, "RescaleIntercept": 1000}
    grey = read_grey(dicom(tmp_path / "a.dcm", pixels, **window))[0]
    assert (grey[pixels[0] <= 0] == 0).all()  # the window shows 1000..1200, stored as 0..200
    assert (grey[pixels[0] >= 200] == 255).all()
    assert abs(int(grey[10]) - 128) <= 1


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"NumberOfFrames": 12}, "12 frames"),
        ({"Rows": 60_000, "Columns": 60_000}, "megapixels"),
        ({"Rows": 7000, "Columns": 7000, "SamplesPerPixel": 3, "BitsAllocated": 16}, "294 MB"),
    ],
)
def test_dicom_with_frames_or_of_impossible_size(tmp_path, elements, message):
    with pytest.raises(ImageError, match=rf"a\.dcm: .*{message}"):
        read_grey(dicom(tmp_path / "a.dcm", RAMP, **elements))


def test_dicom_with_another_image_inside_than_it_says(tmp_path):
    pytest.importorskip("pydicom")
    grey, jpeg = mutants.film(), mutants.sound("jpg")[0]  # 96 x 80, and 200 x 160
    for frame, reason in ((jpeg, "its header says otherwise"), (jpeg + b"\xff\xda" * 60, "dam")):
        content = mutants.dicom(grey, "1.2.840.10008.1.2.4.50", frame)
        (tmp_path / "a.dcm").write_bytes(content)
        with pytest.raises(ImageError, match=reason):
            read_grey(tmp_path / "a.dcm")


def test_dicom_truncated_or_no_dicom(tmp_path):
    path = dicom(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:-2000])
    (tmp_path / "b.dcm").write_bytes(b"\1\2\3")
    for name, reason in (("a.dcm", "it is damaged"), ("b.dcm", "the letters DICM")):
        with pytest.raises(ImageError, match=rf"{name}: this DICOM .* cannot be read \({reason}"):
            read_grey(tmp_path / name)


GRADIENT = np.add.outer(np.arange(400), np.arange(400)).astype(np.uint16) * 5  # 0..3990
STRETCHED = np.rint(GRADIENT * (255 / 3990))


def read_noting(path):
    """Grey values, and what is said of the film."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        grey = read_grey(path)
    return grey, [str(one.message).removeprefix(f"{path}: ") for one in said]


def table_of(entries, descriptor):
    pydicom = pytest.importorskip("pydicom")
    item = pydicom.Dataset()
    item.LUTDescriptor = descriptor
    item.add_new(0x00283006, "OW", np.asarray(entries, "<u2").tobytes())
    return [item]


RISING, FALLING = np.arange(4096) * 16, np.arange(4095, -1, -1) * 16


@pytest.mark.parametrize(
    ("elements", "note"),
    [
        ({"WindowCenter": 0, "WindowWidth": 0}, "window"),
        ({"WindowCenter": [2000, 9], "WindowWidth": [0.5, 90]}, "window"),
        ({"WindowCenter": -9000, "WindowWidth": 100}, "window"),  # nothing is seen through it
        ({"WindowCenter": 0, "WindowWidth": -1, "VOILUTFunction": "SIGMOID"}, "window"),
        ({"WindowCenter": 9, "WindowWidth": 90, "VOILUTFunction": "ODD"}, "window"),
        ({"VOILUTSequence": (FALLING, [4096, 0, 8])}, "VOI table"),
        ({"VOILUTSequence": (FALLING, [4096, 0, 12])}, "VOI table"),
        ({"VOILUTSequence": (FALLING, [4000, 0, 16])}, "VOI table"),
        ({"VOILUTSequence": (FALLING, [5000, 0, 16])}, "VOI table"),
        ({"ModalityLUTSequence": (FALLING, [4096, 0, 8])}, "modality table"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "rescale slope"),
        ({"RescaleSlope": "1e308", "RescaleIntercept": "1e308"}, "rescale slope"),
    ],
)
def test_dicom_is_read_without_what_makes_no_sense(tmp_path, elements, note):
    elements = {
        name: table_of(*value) if "Sequence" in name else value for name, value in elements.items()
    }
    grey, said = read_noting(dicom(tmp_path / "a.dcm", GRADIENT, **elements))
    np.testing.assert_array_equal(grey, STRETCHED)
    assert len(said) == 1 and said[0].startswith(note)


@pytest.mark.parametrize(
    ("elements", "formula"),
    [
        ({"VOILUTSequence": (FALLING // 16, [4096, 0, 12])}, lambda x: 4095 - x),
        ({"VOILUTSequence": (RISING // 256, [4096, 0, 8])}, lambda x: x // 16),
        ({"VOILUTSequence": (RISING[:3000], [3000, 500, 16])}, lambda x: np.clip(x, 500, 3499)),
        ({"ModalityLUTSequence": (FALLING, [4096, 0, 16])}, lambda x: 4095 - x),
        (
            {"WindowCenter": 0.2, "WindowWidth": 0.4, "VOILUTFunction": "LINEAR_EXACT"},
            lambda x: x > 0.4,
        ),
        ({"WindowCenter": 2000, "WindowWidth": 1}, lambda x: x > 1999.5),
        ({"WindowCenter": [2000, 1], "WindowWidth": [2001, 1]}, lambda x: x.clip(999.5, 2999.5)),
        (
            {
                **{"RescaleSlope": -1, "RescaleIntercept": 4000},
                **{"WindowCenter": 2000, "WindowWidth": 2001},
            },
            lambda x: (4000 - x).clip(999.5, 2999.5),
        ),
        ({"RescaleSlope": 2, "RescaleIntercept": -7}, lambda x: x),
        (dict.fromkeys(("WindowCenter", "WindowWidth", "RescaleSlope"), ""), lambda x: x),
    ],
)
def test_dicom_tables_that_make_sense_apply(tmp_path, elements, formula):
    elements = {
        name: table_of(*value) if "Sequence" in name else value for name, value in elements.items()
    }
    grey, said = read_noting(dicom(tmp_path / "a.dcm", GRADIENT, **elements))
    wanted = formula(GRADIENT.astype(float)) * 1.0
    wanted = (wanted - wanted.min()) * (255 / np.ptp(wanted))
    assert said == [] and np.abs(grey - wanted).max() <= 0.6


@pytest.mark.parametrize("level", [0, 65_535])
def test_defective_pixels_change_little_and_sound_films_nothing(tmp_path, level):
    film, away = GRADIENT + 9000, np.zeros((400, 400), bool)
    np.testing.assert_array_equal(read_grey(dicom(tmp_path / "a.dcm", film)), STRETCHED)
    away[::100, ::100] = True
    grey = read_grey(dicom(tmp_path / "a.dcm", np.where(away, level, film).astype(np.uint16)))
    assert np.abs(grey - STRETCHED)[~away].max() <= 10
    assert (grey[away] == (255 if level else 0)).all()


def test_mostly_empty_film_keeps_what_is_rare(tmp_path):
    film = np.zeros((200, 200), np.uint16)
    film[100, 100:110] = 50, 100, 150, 200, 250, 300, 350, 400, 450, 500
    grey = read_grey(dicom(tmp_path / "a.dcm", film))
    np.testing.assert_array_equal(grey[100, 100:110], np.rint(film[100, 100:110] * (255 / 500)))


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "INVERSE", True),  # which go together (PS3.3 C.8.11.3.1.1)
        ("MONOCHROME1", None, True),
    ],
)
def test_dicom_is_inverted_once(tmp_path, photometric, shape, inverted):
    elements = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
    grey = read_grey(dicom(tmp_path / "a.dcm", GRADIENT, **elements))
    np.testing.assert_array_equal(grey, 255 - STRETCHED if inverted else STRETCHED)


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({"Modality": "CT"}, ["modality CT, no radiograph."]),
        ({"Modality": "DX", "ViewPosition": "LL"}, ["a lateral view."]),
        ({"Modality": "CR", "ViewPosition": "LATERAL"}, ["a lateral view."]),
        ({"Modality": "CR", "ViewPosition": "PA"}, []),
        ({"Modality": "DX", "ViewPosition": "LLD"}, []),  # on the left side, and from the front
        ({"Modality": "Jane Doe", "ViewPosition": "Jane Doe"}, []),
    ],
)
def test_dicom_that_is_no_frontal_radiograph_is_named(tmp_path, elements, said):
    grey, found = read_noting(dicom(tmp_path / "a.dcm", GRADIENT, **elements))
    assert found == said
    np.testing.assert_array_equal(grey, STRETCHED)


def test_dicom_files_of_pydicom(tmp_path):
    """Those in its wheel: read as it reads them, or refused for what is true of them."""
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("gdcm")
    folder, outcomes = Path(pydicom.__file__).parent / "data" / "test_files", {}
    for path in sorted(folder.glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                outcomes[path.name] = read_grey(path).shape
            except ImageError as error:
                outcomes[path.name] = str(error).removeprefix(f"{path}: ")
                try:
                    decoded = pydicom.dcmread(path).pixel_array.any()
                except Exception:
                    decoded = False
                assert not decoded or "damaged" not in outcomes[path.name], path
    wanted = {
        "SC_rgb_jpeg_gdcm.dcm": (100, 100),  # JPEG Lossless
        "MR_small_jpeg_ls_lossless.dcm": (64, 64),
        "SC_rgb_jls_lossy_line.dcm": (100, 100),
        "JPEG2000.dcm": (1024, 256),
        "JPEG-lossy.dcm": "JPEG Extended",  # of 12 bits
        "JPGExtended.dcm": "JPEG Extended",
        "examples_palette.dcm": "numbers of colours",
        "examples_ybr_color.dcm": "30 frames",
        "rtplan.dcm": "it holds no image",
        "MR_truncated.dcm": "it is damaged",
    }
    assert len(outcomes) > 60
    for name, outcome in wanted.items():
        found = outcomes[name]
        assert found == outcome if isinstance(outcome, tuple) else outcome in found, (name, found)


def test_gdcm_decodes_what_pydicom_would(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    pytest.importorskip("gdcm")
    files = pydicom.data.get_testdata_files
    (packed,), (plain,) = files("MR_small_jpeg_ls_lossless.dcm"), files("MR_small.dcm")
    one, other = read_noting(Path(packed)), read_noting(Path(plain))
    np.testing.assert_array_equal(one[0], other[0])
    assert one[1] == other[1] == ["modality MR, no radiograph."]


def test_compression_that_nothing_undoes_is_named(tmp_path):
    pytest.importorskip("pydicom")
    for syntax, name in (("4.201", "High-Throughput JPEG 2000"), ("4.100", "MPEG2")):
        content = mutants.dicom(mutants.film(), f"1.2.840.10008.1.2.{syntax}", b"\xff\x4f\xff\x51")
        (tmp_path / "a.dcm").write_bytes(content)
        with pytest.raises(ImageError, match=f"undoes its compression, {name}") as error:
            read_grey(tmp_path / "a.dcm")
        assert "damaged" not in str(error.value)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
@pytest.mark.parametrize("without_meta", [False, True])
def test_dicom_without_a_preamble_is_read(tmp_path, syntax, without_meta):
    whole = dicom(tmp_path / "whole.dcm", RAMP, Modality="DX")
    whole.write_bytes(mutants.dicom(RAMP, syntax, Modality="DX", PatientID="77"))
    content = whole.read_bytes()
    begin = 132 + 12 + int.from_bytes(content[140:144], "little") if without_meta else 132
    bare = tmp_path / "scan"
    bare.write_bytes(content[begin:])
    assert content[begin : begin + 2] == (b"\x08\0" if without_meta else b"\2\0")
    np.testing.assert_array_equal(read_grey(bare), read_grey(whole))
    assert images.read(bare)[1] == "DICOM" and images.dicom.patient_id(bare) == "77"
    bare.write_bytes(content[begin:-2000])
    with pytest.raises(ImageError, match="scan: this DICOM file cannot be read"):
        read_grey(bare)


def test_deflated_dicom_without_a_preamble_is_limited(tmp_path, monkeypatch):
    pytest.importorskip("pydicom")
    content = mutants.dicom(mutants.film(), "1.2.840.10008.1.2.1.99")
    (tmp_path / "a.dcm").write_bytes(content[132:])
    np.testing.assert_array_equal(read_grey(tmp_path / "a.dcm").shape, mutants.film().shape)
    monkeypatch.setattr(images.dicom, "MOST_DECODED", 7_000)
    with pytest.raises(ImageError, match="deflated from more than"):
        read_grey(tmp_path / "a.dcm")


@pytest.mark.parametrize("syntax", ["1.3.6.1.4.1.99999.70000", "1.2.840.10008.1.2.4.999"])
def test_a_compression_without_a_name_is_called_by_its_number(tmp_path, syntax):
    pytest.importorskip("pydicom")
    known = "1.2.840.10008.1.2.4.201"  # as long: pydicom writes no other
    content = mutants.dicom(mutants.film(), known, b"\xff\x4f\xff\x51")
    (tmp_path / "a.dcm").write_bytes(content.replace(known.encode(), syntax.encode()))
    with pytest.raises(ImageError, match=rf"knows its compression, {syntax}\b.*gdcmconv") as error:
        read_grey(tmp_path / "a.dcm")
    assert "damaged" not in str(error.value)


def test_dicom_without_pydicom(tmp_path, monkeypatch):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r'a\.dcm.*pip install "cxrlib\[dicom\]"'):
        read_grey(tmp_path / "a.dcm")


# --- the array on disk --------------------------------------------------------------------------


def make_files(folder, count):
    return [write(folder / f"{n:03}.png", np.full((40, 50), n, np.uint8)) for n in range(count)]


def count_reads(monkeypatch):
    read, calls = images.read, []
    monkeypatch.setattr(images, "read", lambda *given: (calls.append(given), read(*given))[1])
    return calls


@pytest.mark.parametrize("workers", [1, 2, None])
def test_decode_aligns_rows_and_paths(tmp_path, monkeypatch, workers):
    monkeypatch.setattr(disk, "BLOCK", 7)
    paths = make_files(tmp_path, 20)[::-1]
    found = decode(paths, side=32, progress=False, workers=workers)
    assert isinstance(found.images, np.memmap)
    assert not found.images.flags.writeable
    assert found.images.shape == (20, 32, 32)
    np.testing.assert_array_equal(found.images[:, 5, 5], np.arange(20)[::-1])
    np.testing.assert_array_equal(Rows(found.images, [7, 2])[1], found.images[2])
    assert found.failures == {}
    assert set(found.formats) == {"PNG"}
    assert (found.sizes == [40, 50]).all()
    assert decode([], side=40, progress=False).images.shape == (0, 40, 40)


def test_decode_once_and_again_what_changed(tmp_path, monkeypatch):
    paths, calls = make_files(tmp_path, 5), count_reads(monkeypatch)
    first = np.array(decode(paths, progress=False).images)
    np.testing.assert_array_equal(decode(paths, progress=False).images, first)
    assert len(calls) == 5
    write(paths[1], np.full((40, 51), 200, np.uint8))
    assert decode(paths, progress=False).images[1].min() == 200


def test_decode_collects_bad_files_and_tries_them_again(tmp_path):
    paths = make_files(tmp_path, 5)
    keys = list("abcde")
    good = paths[3].read_bytes()
    paths[3].write_bytes(good[:50])
    found = decode([*paths, tmp_path / "gone.png"], progress=False, keys=[*keys, "f"])
    assert list(found.failures) == [3, 5]
    assert "003.png" in found.failures[3]
    assert found.formats[3] == ""
    assert not found.images[3].any()
    paths[3].write_bytes(good)
    again = decode([*paths, tmp_path / "gone.png"], progress=False, keys=[*keys, "f"])
    assert list(again.failures) == [5]
    assert again.images[3].min() == 3


def test_notes_outlive_the_process_that_decoded(tmp_path):
    first, *others = make_files(tmp_path, 4)
    Image.fromarray(RAMP).save(
        others[0], format="TIFF", save_all=True, append_images=[Image.fromarray(RAMP)]
    )
    odd = {"Modality": "CT", "ViewPosition": "RL", "WindowCenter": 0, "WindowWidth": 0}
    dicom(others[1], GRADIENT, **odd)
    dicom(others[2], GRADIENT, Modality="CT")
    wanted = {
        "the first of several frames or pages": [1],
        "a lateral view": [2],
        "window narrower than 1 or without any contrast, left out": [2],
        "modality CT, no radiograph": [2, 3],
    }
    for _ in range(2):
        found = decode([first, *others, tmp_path / "gone"], side=32, progress=False)
        assert found.notes == wanted
        assert found.formats == ["PNG", "TIFF", "DICOM", "DICOM", ""]
    assert len(images.NOTES) < 23  # the bits that an int32 has above the format


def decode_until_killed(paths):
    disk.BLOCK, read = 4, images.read
    left = iter(range(20))

    def deadly(path, side):
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path, side)

    images.read = deadly
    decode(paths, side=32, progress=False)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows kills otherwise")
def test_killed_decode_goes_on_where_it_stopped(tmp_path, own_cache, monkeypatch):
    paths = make_files(tmp_path, 60)
    process = multiprocessing.get_context("spawn").Process(target=decode_until_killed, args=[paths])
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (state,) = own_cache.glob("decoded/*/state.npy")
    before = int((np.load(state)[:, 0] > 0).sum())
    assert 8 <= before <= 20  # all but the block that was saved and the one that was read
    calls = count_reads(monkeypatch)
    found = decode(paths, side=32, progress=False)
    assert len(calls) == 60 - before
    np.testing.assert_array_equal(found.images[:, 3, 3], np.arange(60))


def test_too_little_room(tmp_path, own_cache, monkeypatch):
    paths = make_files(tmp_path, 2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=rf"{own_cache}.*disk is full.*CXR_CACHE.*takes .* MB"):
        decode(paths, progress=False)
    assert not list(own_cache.glob("decoded/*"))


def test_disk_that_fills_up_marks_nothing_as_done(tmp_path, monkeypatch):
    paths = make_files(tmp_path, 3)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"disk is full.*CXR_CACHE"):
            decode(paths, progress=False)
    assert decode(paths, progress=False).images[2].min() == 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_images(tmp_path, monkeypatch):
    """Pages of the map are the file's: the system takes them back when it needs them."""

    def own():
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) / 1000

    monkeypatch.setattr(disk, "BLOCK", 10)
    path = write(tmp_path / "a.png", np.full((40, 40), 7, np.uint8))
    decode([path] * 20, side=32, progress=False, keys=range(20))  # what is made once
    if glibc := machine._glibc():
        glibc.malloc_trim(0)  # what it kept could be taken again unseen
    before = own()
    found = decode([path] * 500, progress=False, keys=range(500))  # 45 MB
    assert sum(int(image.max()) for image in found.images) == 500 * 7
    assert own() - before < 15
    held = found.images[:].copy()
    assert len(held) == 500 and own() - before > 40  # so the measure would have shown it
