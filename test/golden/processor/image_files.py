"""Pictures in every mode a user may bring, and what Pillow and Hugging Face make of them.

Kept small on purpose: 61 x 47 pixels say as much about a decoder as a photograph. Pillow cannot write some kinds (16-bit
RGB, interlaced, odd bit depths), so a small PNG writer is here.
"""

import base64
import hashlib
import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms, ImageOps
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

SIZES = [(224, 224), (30, 30), (56, 56), (40, 17)]  # height, width
W, H = 61, 47


def sha(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def noise(seed, count):
    """The generator test/instructblip/processing/image_processor.test.ts has too: numbers without files."""
    out = np.empty(count, np.uint8)
    state = seed
    for i in range(count):
        state = (state * 1664525 + 1013904223) % 2**32
        out[i] = state >> 24
    return out


def photo(width, height, channels, seed):
    """Smooth shading with edges and grain, 0 … 255 as floats."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    planes = []
    for c in range(channels):
        a, b, p, q = rng.uniform(2, 9, 4)
        plane = np.sin(a * x + p) + np.cos(b * y * (c + 1) + q) + (x * a % 1 > 0.6)
        planes.append(plane + rng.normal(0, 0.08, plane.shape))
    pixels = np.stack(planes, -1)
    return (pixels - pixels.min()) / np.ptp(pixels) * 255


def rgb(width=W, height=H, seed=0):
    return Image.fromarray(photo(width, height, 3, seed).astype(np.uint8))


def png(width, height, depth, colour, rows, before=(), interlace=0, after=()):
    """A PNG of raw scan lines (filter 0), with extra chunks before and after the image."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = b"".join(b"\0" + row for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
        + b"".join(chunk(*c) for c in before)
        + chunk(b"IDAT", zlib.compress(data, 9))
        + b"".join(chunk(*c) for c in after)
        + chunk(b"IEND", b"")
    )


def adam7(pixels):
    """Scan lines of the seven interlacing passes of u8[H, W, C]."""
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        part = pixels[y0::dy, x0::dx]
        if part.size:
            yield from (row.tobytes() for row in part)


def packed(values, depth):
    """Grey or palette rows of 1, 2 or 4 bits."""
    for row in values:
        bits = np.unpackbits(row[:, None].astype(np.uint8), axis=1)[:, 8 - depth :]
        yield np.packbits(bits.reshape(-1)).tobytes()


def swapped_profile():
    """The sRGB profile with red and blue exchanged: nothing looks right to who honours it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile[24:36] = bytes(12)  # the time it was made
    tags = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 136 + 12 * i for i in range(struct.unpack(">I", profile[128:132])[0])}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    profile[red : red + 8], profile[blue : blue + 8] = profile[blue : blue + 8], profile[red : red + 8]
    return bytes(profile)


def saved(image, fmt, **options):
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def with_exif(orientation, fmt="JPEG", **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(rgb(24, 16, orientation), fmt, exif=exif, **options)


def tiff(width, height, bits, photometric, strips, endian="<", extra=(), planar=1, formats=()):
    """An uncompressed TIFF, for kinds that Pillow reads but does not write."""
    data = b"".join(strips)
    offsets = [8 + sum(map(len, strips[:i])) for i in range(len(strips))]
    entries = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", bits),
        (259, "H", [1]),
        (262, "H", [photometric]),
        (273, "I", offsets),
        (277, "H", [len(bits)]),
        (278, "I", [height]),
        (279, "I", [len(strip) for strip in strips]),
        (284, "H", [planar]),
    ]
    if extra:
        entries.append((338, "H", extra))
    if formats:
        entries.append((339, "H", formats))
    start = 8 + len(data)
    behind = start + 2 + 12 * len(entries) + 4
    directory, values = struct.pack(endian + "H", len(entries)), b""
    for tag, kind, numbers in entries:
        raw = b"".join(struct.pack(endian + kind, n) for n in numbers)
        where = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(endian + "I", behind + len(values))
        values += b"" if len(raw) <= 4 else raw
        directory += struct.pack(endian + "HHI", tag, {"H": 3, "I": 4}[kind], len(numbers)) + where
    magic = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "I", start)
    return magic + data + directory + bytes(4) + values


def bmp(width, height, bits, rows, palette=b"", masks=(), top_down=False, core=False, colors=0):
    """A BMP of raw rows, each filled up to whole words; the first row is the lowest unless `top_down`."""
    data = b"".join(row + bytes(-len(row) % 4) for row in rows)
    compression = 3 if masks else 0
    if core:
        header = struct.pack("<IHHHH", 12, width, height, 1, bits)
    else:
        size = 56 if len(masks) == 4 else 40
        header = struct.pack("<IiiHHIIiiII", size, width, -height if top_down else height, 1, bits, compression, len(data), 0, 0, colors, 0)
    header += b"".join(struct.pack("<I", mask) for mask in masks)
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + palette + data


def without_adobe(jpeg):
    """The same CMYK JPEG with its APP14 segment cut out."""
    at = jpeg.index(b"\xff\xee")
    return jpeg[:at] + jpeg[at + 2 + struct.unpack(">H", jpeg[at + 2 : at + 4])[0] :]


def as_ycck(jpeg):
    """Adobe's transform byte set to 2: the four components now read as YCCK. Which colours those are does not matter."""
    at = jpeg.index(b"\xff\xeeAdobe"[:2])
    at = jpeg.index(b"Adobe", at)
    return jpeg[: at + 11] + b"\x02" + jpeg[at + 12 :]


def files():
    """name -> bytes"""
    base = rgb()
    alpha = photo(W, H, 4, 1).astype(np.uint8)
    alpha[:, :9, 3] = 0  # fully transparent, with colours underneath
    grey16 = (photo(W, H, 1, 2)[..., 0] * 257).astype(">u2")
    rgb16 = (photo(W, H, 3, 3) * 257).astype(">u2")
    rgba16 = (photo(W, H, 4, 4) * 257).astype(">u2")
    la16 = (photo(W, H, 2, 5) * 257).astype(">u2")
    palette = base.quantize(24)
    plte = bytes(palette.getpalette()[: 3 * 24])
    indices = np.asarray(palette)
    icc = swapped_profile()
    cmyk = saved(Image.fromarray(photo(W, H, 4, 6).astype(np.uint8), "CMYK"), "JPEG", quality=90)
    frames = [rgb(20, 12, s).quantize(16) for s in range(3)]
    small = rgb(20, 12, 9)
    la = Image.fromarray(alpha[..., 2:], "LA")
    transparent_gif = palette.copy()
    return {
        "rgb.png": saved(base, "PNG"),
        "rgba.png": saved(Image.fromarray(alpha), "PNG"),
        "grey.png": saved(base.convert("L"), "PNG"),
        "grey_alpha.png": saved(la, "PNG"),
        "palette.png": saved(palette, "PNG"),
        "palette_transparent_index.png": saved(palette, "PNG", transparency=3),
        "palette_alpha.png": saved(palette, "PNG", transparency=bytes(range(0, 240, 10))),
        "palette_2bit.png": png(W, H, 2, 3, packed(indices % 4, 2), [(b"PLTE", plte[:12])]),
        "grey_transparent.png": saved(base.convert("L"), "PNG", transparency=77),
        "rgb_transparent.png": saved(base, "PNG", transparency=(1, 2, 3)),
        "one_bit.png": saved(base.convert("1"), "PNG"),
        "grey_2bit.png": png(W, H, 2, 0, packed(indices % 4, 2)),
        "grey_4bit.png": png(W, H, 4, 0, packed(indices % 16, 4)),
        "grey_16bit.png": png(W, H, 16, 0, [r.tobytes() for r in grey16]),
        "grey_alpha_16bit.png": png(W, H, 16, 4, [r.tobytes() for r in la16]),
        "rgb_16bit.png": png(W, H, 16, 2, [r.tobytes() for r in rgb16]),
        "rgba_16bit.png": png(W, H, 16, 6, [r.tobytes() for r in rgba16]),
        "interlaced.png": png(W, H, 8, 2, adam7(np.asarray(base)), interlace=1),
        "gamma.png": png(W, H, 8, 2, [r.tobytes() for r in np.asarray(base)], [(b"gAMA", struct.pack(">I", 100000))]),
        "profile.png": saved(base, "PNG", icc_profile=icc),
        "animated.png": saved(small, "PNG", save_all=True, append_images=[rgb(20, 12, 5)]),
        "text_bomb.png": png(W, H, 8, 2, [r.tobytes() for r in np.asarray(base)], [(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 2**20, 9))]),
        "420.jpg": saved(rgb(97, 65, 7), "JPEG", quality=75),
        "444.jpg": saved(rgb(97, 65, 8), "JPEG", quality=95, subsampling=0),
        "progressive.jpg": saved(rgb(97, 65, 9), "JPEG", quality=75, progressive=True),
        "grey.jpg": saved(rgb(97, 65, 10).convert("L"), "JPEG", quality=80),
        "profile.jpg": saved(base, "JPEG", quality=90, icc_profile=icc),
        "cmyk.jpg": cmyk,
        "cmyk_without_adobe.jpg": without_adobe(cmyk),
        "ycck.jpg": as_ycck(cmyk),
        "lossy.webp": saved(base, "WEBP", quality=70),
        "lossless.webp": saved(base, "WEBP", lossless=True),
        "alpha.webp": saved(Image.fromarray(alpha), "WEBP", lossless=True, exact=True),
        "animated.webp": saved(small, "WEBP", save_all=True, append_images=[rgb(20, 12, 5)], lossless=True),
        "palette.gif": saved(palette, "GIF"),
        "transparent.gif": saved(transparent_gif, "GIF", transparency=3),
        "animated.gif": saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "small_frame.gif": small_frame(),
        "one_pixel.png": saved(rgb(1, 1, 11), "PNG"),
        "column.png": saved(rgb(1, 500, 12), "PNG"),
        "row.png": saved(rgb(500, 1, 13), "PNG"),
        **{f"exif_{n}.jpg": with_exif(n, quality=90) for n in range(1, 9)},
        "exif_6.png": with_exif(6, "PNG"),
        "exif_6.webp": with_exif(6, "WEBP", lossless=True),
        **dark(),
        **tiffs(base, alpha),
        **bmps(base),
        **avifs(alpha),
    }


def dark():
    """16-bit grey that is not all white once it is clipped at 255."""
    grey = (photo(W, H, 1, 15)[..., 0] * 1.2).astype(">u2")
    rows = [row.tobytes() for row in grey]
    return {
        "dark_16bit.png": png(W, H, 16, 0, rows),
        "dark_16bit_transparent.png": png(W, H, 16, 0, rows, [(b"tRNS", struct.pack(">H", int(grey[0, 0])))]),
        "dark_16bit_interlaced.png": png(W, H, 16, 0, adam7(grey[..., None]), interlace=1),
        "dark_16bit.tif": saved(Image.fromarray(grey.astype(np.uint16)), "TIFF", compression="tiff_lzw"),
        "dark_16bit_motorola.tif": tiff(W, H, [16], 1, [grey.tobytes()], ">"),
    }


def tiffs(base, alpha):
    grey = base.convert("L")
    words = (photo(W, H, 4, 16) * 257).astype("<u2")
    planes = [np.ascontiguousarray(np.asarray(base)[..., c]).tobytes() for c in range(3)]
    premultiplied = (alpha * (alpha[..., 3:] / 255)).astype(np.uint8)
    premultiplied[..., 3] = alpha[..., 3]
    numbers = photo(W, H, 1, 17)[..., 0] * 1.5 - 50
    return {
        "none.tif": saved(base, "TIFF"),
        "lzw.tif": saved(base, "TIFF", compression="tiff_lzw"),
        "deflate.tif": saved(base, "TIFF", compression="tiff_adobe_deflate"),
        "packbits.tif": saved(base, "TIFF", compression="packbits"),
        "jpeg.tif": saved(base, "TIFF", compression="jpeg", quality=90),
        "grey.tif": saved(grey, "TIFF"),
        "one_bit.tif": saved(base.convert("1"), "TIFF"),
        "fax.tif": saved(base.convert("1"), "TIFF", compression="group4"),
        "white_is_zero.tif": tiff(W, H, [8], 0, [grey.tobytes()]),
        "grey_alpha.tif": saved(Image.fromarray(alpha[..., 2:], "LA"), "TIFF"),
        "rgba.tif": saved(Image.fromarray(alpha), "TIFF"),
        "premultiplied.tif": tiff(W, H, [8] * 4, 2, [premultiplied.tobytes()], extra=[1]),
        "palette.tif": saved(base.quantize(24), "TIFF"),
        "cmyk.tif": saved(Image.fromarray(alpha, "CMYK"), "TIFF"),
        "planes.tif": tiff(W, H, [8] * 3, 2, planes, planar=2),
        "rgb_16bit.tif": tiff(W, H, [16] * 3, 2, [words[..., :3].tobytes()]),
        "rgba_16bit_motorola.tif": tiff(W, H, [16] * 4, 2, [words.astype(">u2").tobytes()], ">", extra=[2]),
        "float.tif": saved(Image.fromarray(numbers.astype(np.float32)), "TIFF"),
        "integer.tif": saved(Image.fromarray(numbers.astype(np.int32)), "TIFF"),
        "pages.tif": saved(rgb(20, 12, 9), "TIFF", save_all=True, append_images=[rgb(30, 10, 5)]),
        "exif_3.tif": with_exif(3, "TIFF"),
        "exif_6.tif": with_exif(6, "TIFF", compression="tiff_lzw"),
    }


def bmps(base):
    pixels = np.asarray(base)
    palette = base.quantize(24)
    colours = np.asarray(palette.getpalette(), np.uint8).reshape(-1, 3)[:, ::-1]  # blue first
    four = np.concatenate([colours, np.zeros_like(colours[:, :1])], 1)
    indices = np.asarray(palette)[::-1]
    words = noise(18, 2 * W * H).reshape(H, 2 * W)
    wide = np.dstack([pixels[::-1, :, ::-1], noise(19, W * H).reshape(H, W)])  # blue, green, red and any byte
    rows = lambda array: [np.ascontiguousarray(row).tobytes() for row in array]
    return {
        "rgb.bmp": saved(base, "BMP"),
        "grey.bmp": saved(base.convert("L"), "BMP"),
        "one_bit.bmp": saved(base.convert("1"), "BMP"),
        "palette.bmp": saved(palette, "BMP"),
        "palette_short.bmp": bmp(W, H, 8, rows(indices), four[:12].tobytes(), colors=12),  # half of the colours are missing
        "palette_4bit.bmp": bmp(W, H, 4, packed(np.pad(indices % 16, [(0, 0), (0, 1)]), 4), four[:16].tobytes()),
        "palette_1bit.bmp": bmp(W, H, 1, packed(np.pad(indices % 2, [(0, 0), (0, 3)]), 1), four[4:6].tobytes()),
        "os2.bmp": bmp(W, H, 8, rows(indices), np.pad(colours, [(0, 256 - len(colours)), (0, 0)]).tobytes(), core=True),
        "555.bmp": bmp(W, H, 16, rows(words)),
        "565.bmp": bmp(W, H, 16, rows(words), masks=(0xF800, 0x7E0, 0x1F)),
        "top_down.bmp": bmp(W, H, 24, rows(pixels[..., ::-1]), top_down=True),
        "bgrx.bmp": bmp(W, H, 32, rows(wide)),
        "bgra.bmp": bmp(W, H, 32, rows(wide), masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        "rgba.bmp": bmp(W, H, 32, rows(wide[..., [2, 1, 0, 3]]), masks=(0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        "xbgr.bmp": bmp(W, H, 32, rows(wide[..., [3, 0, 1, 2]]), masks=(0xFF000000, 0xFF0000, 0xFF00)),
    }


def avifs(alpha):
    small = rgb(24, 16, 20)
    return {
        "444.avif": saved(small, "AVIF", quality=80, subsampling="4:4:4"),
        "420.avif": saved(small, "AVIF", quality=80, subsampling="4:2:0"),
        "grey.avif": saved(small.convert("L"), "AVIF", quality=80, subsampling="4:0:0"),
        "rgba.avif": saved(Image.fromarray(alpha[:16, :24]), "AVIF", quality=80, subsampling="4:4:4"),
        "exif_6.avif": with_exif(6, "AVIF", quality=80, subsampling="4:4:4"),
        "exif_5.avif": with_exif(5, "AVIF", quality=80, subsampling="4:4:4"),
        "animated.avif": saved(small, "AVIF", quality=80, subsampling="4:4:4", save_all=True, append_images=[rgb(24, 16, 5)]),
    }


def small_frame():
    """A GIF whose only frame covers a corner of its screen; background colour 1."""
    gif = bytearray(saved(rgb(10, 8, 14).quantize(8), "GIF", background=1))
    gif[6:10] = struct.pack("<HH", 16, 12)  # the screen, not the frame
    gif[11] = 1
    return bytes(gif)


def decoded():
    """What Pillow and Hugging Face's PIL backend make of each file."""
    out = {}
    for name, data in files().items():
        image = Image.open(io.BytesIO(data))
        image.load()
        pixels = image.convert("RGB")
        entry = {"size": pixels.size, "rgb": sha(np.asarray(pixels)), "first": np.asarray(pixels)[0, 0].tolist()}
        if name.startswith("exif"):
            turned = ImageOps.exif_transpose(image).convert("RGB")
            entry["turned"] = {"size": turned.size, "rgb": sha(np.asarray(turned))}
        entry["resized"] = [sha(np.asarray(pixels.resize((w, h), Image.BICUBIC))) for h, w in SIZES]
        entry["pixel_values"] = [
            sha(BlipImageProcessorPil(size={"height": h, "width": w})(image, return_tensors="np").pixel_values) for h, w in SIZES
        ]
        if name.endswith(".avif"):
            # Decoders differ in how they round, and in how they enlarge colours.
            entry["pixels"] = base64.b64encode(np.asarray(pixels).tobytes()).decode()
        out[name] = entry
    return out


def resizes():
    """Pillow's six filters on noise: [width, height, new width, new height, filter, sha256]."""
    sizes = [(1, 1, 224, 224), (1, 500, 30, 30), (500, 1, 56, 40), (37, 53, 224, 224), (101, 67, 30, 31)]
    sizes += [(64, 64, 64, 64), (224, 100, 224, 60), (100, 224, 60, 224), (300, 3, 56, 56), (313, 199, 1, 1), (3, 2, 100, 7)]
    rng = np.random.default_rng(3)
    sizes += [tuple(int(n) for n in rng.integers(1, 150, 4)) for _ in range(24)]
    out = []
    for i, (w, h, nw, nh) in enumerate(sizes):
        pixels = noise(i, w * h * 3).reshape(h, w, 3)
        for resample in range(6):
            out.append([w, h, nw, nh, resample, sha(np.asarray(Image.fromarray(pixels).resize((nw, nh), resample)))])
    return out


def tensors():
    """Arrays instead of images, and every switch: what the PIL backend returns as float32."""
    height, width = 19, 23
    bytes_ = noise(77, height * width * 3).reshape(height, width, 3)
    unit = (bytes_ / np.float32(255)).astype(np.float32)
    sources = {
        "u8_last": bytes_,
        "u8_first": bytes_.transpose(2, 0, 1),
        "unit_last": unit,
        "unit_first": unit.transpose(2, 0, 1),
        "whole_last": bytes_.astype(np.float32),
        "ambiguous": noise(78, 3 * 20 * 3).reshape(3, 20, 3),
    }
    options = [
        {},
        {"do_resize": False},
        {"do_rescale": False},
        {"do_normalize": False},
        {"do_rescale": False, "do_normalize": False},
        {"do_resize": False, "do_rescale": False, "do_normalize": False},
        {"do_resize": False, "do_rescale": False},
        {"resample": 2, "size": 17},
        {"size": [9, 12], "rescale_factor": 0.00784313725490196, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 0.5, 2.0]},
        {"image_mean": 0.5, "image_std": 0.25},
    ]
    out = []
    for name, array in sources.items():
        for option in options:
            processor = BlipImageProcessorPil(size={"height": 30, "width": 28})
            values = processor(array, return_tensors="np", **option).pixel_values
            out.append([name, option, list(values.shape), sha(values.astype(np.float32))])
    ambiguous_last = BlipImageProcessorPil(size=8)(sources["ambiguous"], return_tensors="np", input_data_format="channels_last")
    out.append(["ambiguous", {"size": 8, "input_data_format": "channels_last"}, list(ambiguous_last.pixel_values.shape), sha(ambiguous_last.pixel_values)])
    return out
