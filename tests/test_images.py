import multiprocessing
import os
import signal
import struct
import sys
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from cxrlib import films, images, phantom
from cxrlib.cohort import Rows
from cxrlib.films import ImageError, read_grey
from cxrlib.images import StoredImages, decode, resize
from cxrlib.threads import share

RAMP = np.add.outer(np.arange(64) * 2, np.arange(48) * 2).astype(np.uint8)  # 64 x 48, 0..220


def write(path, array, mode=None, **options):
    Image.fromarray(array, mode).save(path, **options) if mode else cv2.imwrite(str(path), array)
    return path


def png_of(width, height):
    """Header and end of a PNG file; no room for the pixels it announces."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_grey_png_is_read_as_it_is(tmp_path):
    np.testing.assert_array_equal(read_grey(write(tmp_path / "a.png", RAMP)), RAMP)


def test_name_with_umlauts_and_blanks(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "Röntgen bild.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "Röntgen bild.png"), RAMP)


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


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_colour_becomes_luminance(tmp_path, kind):
    colour = np.zeros((40, 40, 3), np.uint8)
    colour[..., 1] = 200  # green: 0.587 of the luminance (ITU-R BT.601)
    grey = read_grey(write(tmp_path / f"a.{kind}", colour))
    assert abs(int(grey[20, 20]) - 117) <= 1


def test_transparent_parts_are_black(tmp_path):
    values = np.full((40, 40, 4), 200, np.uint8)
    values[:20, :, 3], values[20:, :, 3] = 0, 255
    grey = read_grey(write(tmp_path / "a.png", values))
    assert (grey[:20] == 0).all()
    assert (grey[20:] == 200).all()


def test_palette_bilevel_and_grey_with_opacity(tmp_path):
    Image.fromarray(RAMP).convert("P").save(tmp_path / "p.png")
    assert np.abs(read_grey(tmp_path / "p.png").astype(int) - RAMP).max() <= 1
    Image.fromarray(RAMP > 100).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "b.png"), np.where(RAMP > 100, 255, 0))
    Image.fromarray(RAMP).convert("LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "la.png"), RAMP)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_agrees_with_pillow(tmp_path, progressive):
    path = tmp_path / "a.jpg"
    Image.fromarray(RAMP).save(path, quality=95, progressive=progressive)
    reference = np.asarray(Image.open(path).convert("L")).astype(int)
    assert np.abs(read_grey(path) - reference).max() <= 2


def noisy(tmp_path, name, **options):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("fill", [b"", b"\0" * 500])
def test_truncated_jpeg(tmp_path, part, progressive, fill):
    path = noisy(tmp_path, "a.jpg", progressive=progressive)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))] + fill)
    with pytest.raises(ImageError, match=r"a\.jpg.*(truncated|damaged|not an image)"):
        read_grey(path)


def test_jpeg_with_something_behind_it_is_whole(tmp_path):
    path = noisy(tmp_path, "a.jpg")
    image = read_grey(path)
    path.write_bytes(path.read_bytes() + b"\0\0 appended by a camera")
    np.testing.assert_array_equal(read_grey(path), image)


@pytest.mark.parametrize("part", [0.001, 0.05, 0.5, 0.9, 0.9999])
def test_truncated_png(tmp_path, part):
    path = noisy(tmp_path, "a.png")
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ImageError, match=r"a\.png.*(truncated|damaged|not an image)"):
        read_grey(path)


def test_tampered_png(tmp_path):
    path = noisy(tmp_path, "a.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ImageError, match="damaged"):
        read_grey(path)


def test_png_that_announces_more_pixels_than_it_has(tmp_path):
    (tmp_path / "a.png").write_bytes(png_of(500, 500))
    with pytest.raises(ImageError, match=r"a\.png"):
        read_grey(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 8_000), (2_000_000_000, 2)])
def test_too_many_pixels_are_refused_unread(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_of(*size))
    start = time.monotonic()
    with pytest.raises(ImageError, match=r"a\.png.*64 megapixels"):
        read_grey(tmp_path / "a.png")
    assert time.monotonic() - start < 1


@pytest.mark.parametrize("size", [(1, 1), (300, 5), (31, 31)])
def test_too_small(tmp_path, size):
    path = write(tmp_path / "a.png", np.zeros(size, np.uint8))
    with pytest.raises(ImageError, match="too small to be a radiograph"):
        read_grey(path)


@pytest.mark.parametrize("kind", ["gif", "png", "webp"])
def test_animated(tmp_path, kind):
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=rf"a\.{kind}: it is animated.*Save one frame as PNG"):
        read_grey(tmp_path / f"a.{kind}")


@pytest.mark.parametrize("kind", ["gif", "bmp", "tiff"])
def test_other_formats_are_named(tmp_path, kind):
    Image.fromarray(RAMP).save(tmp_path / f"a.{kind}")
    with pytest.raises(ImageError, match=f"{kind.upper()} is not read here. Save it as PNG"):
        read_grey(tmp_path / f"a.{kind}")


def test_empty_missing_folder_and_text(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("<html>not found</html>")
    (tmp_path / "folder.png").mkdir()
    for name, message in [
        ("empty", "is empty"),
        ("text", "not an image"),
        ("gone", "no such file"),
        ("folder", "no such file"),
    ]:
        with pytest.raises(ImageError, match=rf"{name}\.png: .*{message}"):
            read_grey(tmp_path / f"{name}.png")


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


# --- shrinking while reading ------------------------------------------------------------------


def decode_one(path, side):
    found = decode([path], side=side, progress=False)
    assert found.failures == {}
    return found.images[0].astype(float)


def save(path, image):
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else []
    cv2.imwrite(str(path), image, options)
    return path


@pytest.mark.parametrize("side", [224, 300])
@pytest.mark.parametrize("size", [(1000, 1000), (1001, 963)])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_fine_rings_vanish_and_coarse_ones_stay(tmp_path, kind, size, side):
    """A zone plate: `distance` pixels off its centre the rings have distance / side cycles a
    pixel of the result, so those beyond 1 cannot be shown, and must not turn into moiré.
    """
    rows, columns = np.ogrid[: size[0], : size[1]]
    squared = (rows - size[0] / 2) ** 2 + (columns - size[1] / 2) ** 2
    rings = np.rint(127.5 + 127.5 * np.cos(np.pi * squared / max(size))).astype(np.uint8)
    path = save(tmp_path / f"a.{kind}", rings)
    found, whole = decode_one(path, side), resize(read_grey(path), side).astype(float)
    distance = np.hypot(*np.meshgrid(*[np.arange(side) + 0.5 - side / 2] * 2)) * max(size) / side
    fine, coarse = distance > 1.1 * side, distance < 0.15 * side
    every = cv2.resize(rings, (side, side), interpolation=cv2.INTER_NEAREST)
    assert every[fine].std() > 80  # moiré: what leaving pixels out makes of it
    assert found[fine].std() < 14
    assert np.corrcoef(found[coarse], whole[coarse])[0, 1] > 0.985


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_stripes_of_one_pixel_become_grey(tmp_path, kind):
    stripes = np.tile(np.array([0, 255], np.uint8), (1000, 500))
    found = decode_one(save(tmp_path / f"a.{kind}", stripes), 224)
    assert np.abs(found - 127.5).max() <= 2


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("side", [150, 224, 300])
def test_a_radiograph_is_the_same_shrunk_or_read_whole(tmp_path, kind, side):
    film = phantom.render("covid", size=300).image
    film = cv2.resize(film, (1023, 962), interpolation=cv2.INTER_CUBIC)
    path = save(tmp_path / f"a.{kind}", film)
    away = np.abs(decode_one(path, side) - resize(read_grey(path), side))
    assert away.mean() < 1  # grey levels; more only where letters have sharp edges
    assert np.percentile(away, 99) <= 4


def test_shrinking_stays_above_the_side_and_within_a_third_of_a_pixel():
    rng = np.random.default_rng(0)
    used = set()
    for height, width, side in rng.integers([32, 32, 16], [5000, 5000, 600], (3000, 3)).tolist():
        scale = films._scale(height, width, side)
        used.add(scale)
        if scale > 1:
            assert min(height, width) // scale >= side
            for length in (height, width):
                covered = -(-length // scale) * scale  # by the blocks of the shrunk image
                assert (covered - length) / length * side <= 1
    assert used == {1, 2, 4, 8}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_jpeg_is_turned_when_shrunk_too(tmp_path, orientation):
    picture = np.zeros((640, 960), np.uint8)
    picture[:320, :480], picture[:320, 480:] = 200, 100
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    whole = read_grey(tmp_path / "a.jpg")
    found = decode([tmp_path / "a.jpg"], side=64, progress=False)
    assert films._scale(640, 960, 64) == 8
    assert np.abs(found.images[0].astype(int) - resize(whole, 64)).mean() < 2
    assert tuple(found.sizes[0]) == whole.shape == ((640, 960), (960, 640))[orientation > 4]


@pytest.mark.parametrize("part", [0.5, 0.999])
def test_truncated_jpeg_is_refused_when_shrunk_too(tmp_path, part):
    path = noisy(tmp_path, "a.jpg")
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    assert "truncated" in decode([path], side=50, progress=False).failures[0]


def test_colours_become_luminance_when_shrunk_too(tmp_path):
    colour = np.zeros((640, 640, 3), np.uint8)
    colour[..., 1] = 200
    for kind in ("jpg", "png"):
        assert np.abs(decode_one(save(tmp_path / f"a.{kind}", colour), 64) - 117).max() <= 1


def test_file_larger_than_any_image_is_refused_unread(tmp_path):
    path = noisy(tmp_path, "a.jpg")
    with path.open("r+b") as file:
        file.truncate(films.MOST_BYTES + 1)  # takes no room on the disk
    most = films.MOST_BYTES // 10**6
    with pytest.raises(ImageError, match=rf"a\.jpg: more than {most} MB is no radiograph"):
        read_grey(path)


# --- DICOM ------------------------------------------------------------------------------------


def dicom(path, pixels, photometric="MONOCHROME2", **elements):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PhotometricInterpretation = photometric
    dataset.PixelData = pixels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def test_dicom_is_scaled_from_darkest_to_brightest(tmp_path):
    pixels = RAMP.astype(np.uint16) * 10 + 500
    grey = read_grey(dicom(tmp_path / "a.dcm", pixels))
    np.testing.assert_array_equal(grey, np.rint(RAMP * (255 / 220)))


def test_dicom_without_ending_is_recognised(tmp_path):
    assert read_grey(dicom(tmp_path / "IM0001", RAMP)).shape == RAMP.shape


def test_dicom_monochrome1_is_inverted(tmp_path):
    grey = read_grey(dicom(tmp_path / "a.dcm", RAMP, "MONOCHROME1"))
    assert grey[0, 0] == 255
    assert grey[-1, -1] == 0


def test_dicom_window_and_rescale(tmp_path):
    pixels = np.repeat(np.arange(0, 400, 10, dtype=np.uint16)[None], 40, 0)
    window = {"WindowCenter": 1100, "WindowWidth": 200, "RescaleSlope": 1, "RescaleIntercept": 1000}
    grey = read_grey(dicom(tmp_path / "a.dcm", pixels, **window))[0]
    assert (grey[pixels[0] <= 0] == 0).all()  # the window shows 1000..1200, stored as 0..200
    assert (grey[pixels[0] >= 200] == 255).all()
    assert abs(int(grey[10]) - 128) <= 1


def test_dicom_with_frames_or_of_impossible_size(tmp_path):
    with pytest.raises(ImageError, match="12 frames"):
        read_grey(dicom(tmp_path / "a.dcm", RAMP, NumberOfFrames=12))
    with pytest.raises(ImageError, match="megapixels"):
        read_grey(dicom(tmp_path / "b.dcm", RAMP, Rows=60_000, Columns=60_000))


def test_dicom_truncated_or_no_dicom(tmp_path):
    path = dicom(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:-2000])
    (tmp_path / "b.dcm").write_text("hello")
    for name in ("a.dcm", "b.dcm"):
        with pytest.raises(ImageError, match=f"{name}: this DICOM file cannot be read"):
            read_grey(tmp_path / name)


def test_dicom_without_pydicom(tmp_path, monkeypatch):
    (tmp_path / "a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ImageError, match=r'a\.dcm.*pip install "cxrlib\[dicom\]"'):
        read_grey(tmp_path / "a.dcm")


# --- the array on disk ------------------------------------------------------------------------


def make_files(folder, count):
    folder.mkdir(exist_ok=True)
    return [write(folder / f"{n:03}.png", np.full((40, 50), n, np.uint8)) for n in range(count)]


def test_decode_aligns_rows_and_paths(tmp_path):
    paths = make_files(tmp_path, 20)[::-1]
    found = decode(paths, side=32, progress=False)
    assert isinstance(found.images, np.memmap)
    assert not found.images.flags.writeable
    assert found.images.shape == (20, 32, 32)
    np.testing.assert_array_equal(found.images[:, 5, 5], np.arange(20)[::-1])
    assert found.failures == {}
    assert set(found.formats) == {"PNG"}
    assert (found.sizes == [40, 50]).all()


def test_decode_once(tmp_path, monkeypatch):
    paths = make_files(tmp_path, 5)
    first = np.array(decode(paths, progress=False).images)
    monkeypatch.setattr(films, "read", None)
    np.testing.assert_array_equal(decode(paths, progress=False).images, first)


def test_changed_file_is_decoded_again(tmp_path):
    paths = make_files(tmp_path, 3)
    decode(paths, progress=False)
    write(paths[1], np.full((40, 51), 200, np.uint8))
    os.utime(paths[1], ns=(1, 1))
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


def test_decode_nothing():
    found = decode([], side=40, progress=False)
    assert found.images.shape == (0, 40, 40)


def decode_slowly(paths, wait):
    images.BLOCK = 4
    read = films.read

    def slow(path, side):
        time.sleep(wait)
        return read(path, side)

    films.read = slow
    decode(paths, side=32, progress=False)


def test_killed_decode_goes_on_where_it_stopped(tmp_path, own_cache, monkeypatch):
    paths = make_files(tmp_path, 60)
    process = multiprocessing.get_context("spawn").Process(target=decode_slowly, args=(paths, 0.1))
    process.start()

    def done():
        states = list(own_cache.glob("decoded/*/state.npy"))
        return int((np.load(states[0])[:, 0] > 0).sum()) if states else 0

    for _ in range(400):
        if done() >= 8:
            break
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = done()
    assert 8 <= before < 60
    read, calls = films.read, []
    monkeypatch.setattr(films, "read", lambda *given: (calls.append(given), read(*given))[1])
    found = decode(paths, side=32, progress=False)
    assert len(calls) == 60 - before
    np.testing.assert_array_equal(found.images[:, 3, 3], np.arange(60))


def test_two_decodes_at_once(tmp_path):
    paths = make_files(tmp_path, 40)
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=decode_slowly, args=(paths, 0.01)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    found = decode(paths, side=32, progress=False)
    np.testing.assert_array_equal(found.images[:, 3, 3], np.arange(40))


def test_too_little_room(tmp_path, own_cache, monkeypatch):
    paths = make_files(tmp_path, 2)
    monkeypatch.setattr(images.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(OSError, match=rf"{own_cache}.*takes .* MB.*CXR_CACHE"):
        decode(paths, progress=False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_that_fills_up_marks_nothing_as_done(tmp_path, monkeypatch):
    paths = make_files(tmp_path, 3)

    def write_rows(*_):
        with open("/dev/full", "wb") as full:  # noqa: PTH123
            full.write(b"x")

    with monkeypatch.context() as patch:
        patch.setattr(images, "_write_rows", write_rows)
        with pytest.raises(OSError, match=r"No space left.*CXR_CACHE"):
            decode(paths, progress=False)
    assert decode(paths, progress=False).images[2].min() == 2


# --- threads, and reading the array -----------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 5, None])
def test_shared_work_is_done_once_each(threads):
    done = []
    share(done.append, 23, threads)
    assert sorted(done) == list(range(23))
    share(done.append, 0, threads)
    assert len(done) == 23


@pytest.mark.parametrize("threads", [1, 3])
def test_shared_work_passes_on_what_goes_wrong(threads):
    with pytest.raises(ZeroDivisionError):
        share(lambda number: 1 / (number - 4), 9, threads)


def store(folder, count=12, side=40):
    array = np.random.default_rng(0).integers(0, 256, (count, side, side), dtype=np.uint8)
    np.save(folder / "images.npy", array)
    return array, StoredImages.open(folder / "images.npy")


def test_stored_images_are_indexed_as_any_array(tmp_path):
    array, stored = store(tmp_path)
    keys = [0, -1, np.int64(5), [3, 1, -2], np.array([], int), np.arange(4), slice(2, 9, 3)]
    keys += [(slice(None), 3, 4), (2, 5), np.arange(12) % 2 == 0, ..., None]
    for key in keys:
        np.testing.assert_array_equal(stored[key], array[key])
    np.testing.assert_array_equal(stored[4:][1], array[5])  # a view has rows of its own
    np.testing.assert_array_equal(Rows(stored, [7, 2])[1], array[2])
    np.testing.assert_array_equal(np.asarray(stored), array)
    for key in (12, -13, [0, 12]):
        with pytest.raises(IndexError):
            stored[key]


def test_stored_images_that_are_cut_short_or_deleted(tmp_path):
    array, stored = store(tmp_path)
    (tmp_path / "images.npy").unlink()
    np.testing.assert_array_equal(stored[3], array[3])
    array, stored = store(tmp_path)
    os.truncate(tmp_path / "images.npy", 5000)
    np.testing.assert_array_equal(stored[1], array[1])
    with pytest.raises(OSError, match="cut short"):
        stored[11]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_images_that_were_read(tmp_path):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    array, stored = store(tmp_path, count=500, side=300)  # 45 MB
    del array
    before = resident()
    for row in range(500):
        stored[row].max()
    by_number = resident() - before
    for row in range(500):
        stored[row : row + 1].max()
    through_the_map = resident() - before
    assert by_number < 5e6
    assert through_the_map > 30e6  # so the measure would have shown it


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_colours_turn_grey_in_strips_as_at_once(tmp_path, monkeypatch, mode):
    pixels = np.random.default_rng(0).integers(0, 256, (97, 113, 4), dtype=np.uint8)
    image = Image.fromarray(pixels)
    image = image.convert("RGB").quantize(50) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "film.png")
    at_once = films.read(tmp_path / "film.png")[0]
    rgba = np.asarray(image.convert("RGBA")).astype(float)
    luma = rgba[..., :3] @ [0.299, 0.587, 0.114] * rgba[..., 3] / 255
    assert np.abs(at_once - luma).max() <= 1.01
    for strip in (1, 1000):
        monkeypatch.setattr(films, "STRIP", strip)
        np.testing.assert_array_equal(films.read(tmp_path / "film.png")[0], at_once)
