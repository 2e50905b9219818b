r"""
Colours of video frames: between PyAV frames and RGB values in [0, 1].

The YUV matrices are applied here, in floating point, rather than by FFmpeg's scaler: its
fast paths are off by one or two grey levels, and a reconstruction sees that as noise.
The scaler only brings the chroma planes to full size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av import VideoFrame

# H.273 matrix coefficients: code -> (K_r, K_b); "unspecified" is FFmpeg's default, 601
_MATRICES = {
    1: (0.2126, 0.0722),
    2: (0.299, 0.114),
    3: (0.299, 0.114),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_BT601, _BT709, _BT2020 = 5, 1, 9
_LIMITED, _FULL = 1, 2
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}

# H.273 primaries: code -> chromaticities of red, green, blue; all with the white D65 but
# that of theatres. Those of BT.601 are so near to BT.709 (and so often noted by mistake)
# that they are taken as such, as players do.
_PRIMARIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_TAKEN_AS_BT709 = frozenset({0, 1, 2, 5, 6, 7})
_D65 = (0.3127, 0.3290)

# of displays: BT.1886, and by the transfer function (4: gamma 2.2, 13: sRGB)
_BT1886_GAMMA = 2.4
_DISPLAY_GAMMAS = {4: 2.2, 13: 2.2}

# of HDR in cd/m²: white of graphics, and the brightest that is told apart; share of white
# from which on it is compressed
_WHITE, _PEAK, _KNEE = 203.0, 1000.0, 0.5

# pixel formats with an alpha channel begin like this
_OPAQUE = 254  # of 255: limited range and rounding take one
_WITH_ALPHA = ("rgba", "bgra", "argb", "abgr", "yuva", "gbrap", "ya8", "ya16", "pal8")


def is_opaque(frame: VideoFrame) -> bool:
    r"""
    Whether no pixel of a frame is transparent.

    :param av.VideoFrame frame: decoded frame.
    :return: (bool) whether.
    """
    if not frame.format.name.startswith(_WITH_ALPHA):
        return True
    seen = frame.reformat(format="rgba").to_ndarray()[..., 3]
    return bool(seen.min() >= _OPAQUE)


def frame_to_rgb(frame: VideoFrame, tonemap: bool = False) -> np.ndarray:
    r"""
    RGB values of a decoded frame, with the primaries of BT.709.

    Those of BT.2020 and Display P3 are converted in linear light, as on a display. The
    frame's own matrix (BT.601 where it does not say, as FFmpeg) and range (limited where
    it does not say, full for grey and ``yuvj`` formats) are undone. Nothing is rounded to
    8 bit on the way.

    :param av.VideoFrame frame: decoded frame, YUV, grey, palette or RGB, up to 16 bit.
    :param bool tonemap: bring HDR (PQ and HLG) to the range of an ordinary display, see
        :func:`to_standard_range`, rather than refuse it.
    :return: (numpy.ndarray) float32, shape ``(H, W, 3)``, in [0, 1].
    :raises ValueError: if the colour coding is one that this reader does not know.
    """
    transfer = int(getattr(frame, "color_trc", 2))
    primaries = int(getattr(frame, "color_primaries", 2))
    if transfer in _HDR_TRANSFERS and tonemap:
        known = primaries if primaries in _PRIMARIES else _BT2020
        return to_standard_range(_values(frame), _HDR_TRANSFERS[transfer], known)
    if transfer in _HDR_TRANSFERS:
        msg = (
            f"its colours are HDR ({_HDR_TRANSFERS[transfer]}), which are not values in "
            "[0, 1] of an ordinary display. Have it converted (`tonemap=True`, on the "
            "command line --tonemap), or do it yourself, for example with `ffmpeg "
            "-i IN -vf zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709,"
            "tonemap=hable:desat=0,zscale=t=bt709:m=bt709:r=tv,format=yuv420p -crf 12 "
            "-c:a copy OUT.mp4`"
        )
        raise ValueError(msg)
    if primaries not in _TAKEN_AS_BT709 and primaries not in _PRIMARIES:
        msg = (
            f"its primaries (code {primaries} of H.273) are not supported. Convert it "
            "first, for example with `ffmpeg -i IN -vf zscale=p=bt709 -crf 12 OUT.mp4`"
        )
        raise ValueError(msg)
    values = _values(frame)
    if primaries in _TAKEN_AS_BT709:
        return values
    return to_bt709(values, primaries, _DISPLAY_GAMMAS.get(transfer, _BT1886_GAMMA))


def to_bt709(rgb: np.ndarray, primaries: int, gamma: float) -> np.ndarray:
    r"""
    Colours of wider primaries as those of BT.709; what it cannot show is clipped.

    :param numpy.ndarray rgb: values in [0, 1], last axis RGB.
    :param int primaries: code of H.273: 9 (BT.2020) or 12 (Display P3).
    :param float gamma: of the display that they are for.
    :return: (numpy.ndarray) the same in BT.709, float32.
    """
    matrix = np.linalg.inv(_to_xyz(1)) @ _to_xyz(primaries)
    linear = np.clip(rgb.astype(np.float64) ** gamma @ matrix.T, 0.0, 1.0)
    return (linear ** (1 / gamma)).astype(np.float32)


def to_standard_range(rgb: np.ndarray, transfer: str, primaries: int) -> np.ndarray:
    r"""
    HDR values as those of an ordinary display, BT.709.

    The light of the display (BT.2100) is taken relative to 203 cd/m², the white of
    graphics (BT.2408), in the primaries of BT.709. Up to half of that it stays; above,
    the largest of the three channels is compressed, so that 1000 cd/m² become 1, and the
    others keep their ratio to it.

    :param numpy.ndarray rgb: values in [0, 1], last axis RGB.
    :param str transfer: ``'PQ'`` or ``'HLG'``.
    :param int primaries: code of H.273: 1, 9 or 12.
    :return: (numpy.ndarray) values in [0, 1], float32.
    """
    signal = rgb.astype(np.float64)
    light = _light_of_pq(signal) if transfer == "PQ" else _light_of_hlg(signal)
    matrix = np.linalg.inv(_to_xyz(1)) @ _to_xyz(primaries)
    light = np.clip(light / _WHITE @ matrix.T, 0.0, _PEAK / _WHITE)
    level = light.max(axis=-1, keepdims=True)
    ratio = _compressed(level) / np.maximum(level, 1e-9)
    return (np.clip(light * ratio, 0, 1) ** (1 / _BT1886_GAMMA)).astype(np.float32)


def _light_of_pq(signal: np.ndarray) -> np.ndarray:
    """Light of a display in cd/m² (SMPTE ST 2084)."""
    m1, m2 = 2610 / 16384, 2523 / 32
    c1, c2, c3 = 3424 / 4096, 2413 / 128, 2392 / 128
    power = signal ** (1 / m2)
    return 10000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)


def _light_of_hlg(signal: np.ndarray) -> np.ndarray:
    """Light of a display of 1000 cd/m² (BT.2100: inverse OETF, then OOTF of gamma 1.2)."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return _PEAK * scene * luminance[..., None] ** 0.2


def _compressed(level: np.ndarray) -> np.ndarray:
    """The identity up to the knee; from there with slope 1 at first to 1 at the peak."""
    room = 1 - _KNEE
    over = np.maximum(level - _KNEE, 0) / room
    largest = (_PEAK / _WHITE - _KNEE) / room
    return np.minimum(level, _KNEE) + room * over * (1 + over / largest**2) / (1 + over)


def _to_xyz(primaries: int) -> np.ndarray:
    """Matrix from linear RGB to XYZ: columns are the primaries, their sum is white."""
    columns = np.array([[x, y, 1 - x - y] for x, y in _PRIMARIES[primaries]]).T
    x, y = _D65
    white = np.array([x / y, 1, (1 - x - y) / y])
    return columns * np.linalg.solve(columns, white)


def _values(frame: VideoFrame) -> np.ndarray:
    """RGB values in the primaries that the frame has."""
    name = frame.format.name
    deep = any(component.bits > 8 for component in frame.format.components)
    if frame.format.is_rgb or name.startswith(("pal8", "mono")):
        return _planes(frame, "rgb48le" if deep else "rgb24")
    grey = name.startswith("gray")
    full_by_name = grey or name.startswith("yuvj")
    unspecified = _FULL if full_by_name else _LIMITED
    colour_range = int(frame.color_range) or unspecified
    if grey:
        # planes as they are: a conversion to YUV would change the range
        luma = _planes(frame, "gray16le" if deep else "gray", colour_range)
        luma = _expand_luma(luma, colour_range, deep)
        return np.clip(np.repeat(luma, 3, axis=2), 0.0, 1.0)
    if frame.colorspace not in _MATRICES:
        msg = (
            f"its colour matrix (code {int(frame.colorspace)} of H.273) is not supported."
            " Convert it first, for example with ffmpeg -vf scale=out_color_matrix=bt709"
        )
        raise ValueError(msg)
    planes = _planes(frame, "yuv444p16le" if deep else "yuv444p", colour_range)
    luma = _expand_luma(planes[..., 0], colour_range, deep)
    blue, red = _expand_chroma(planes[..., 1:], colour_range, deep)
    k_r, k_b = _MATRICES[int(frame.colorspace)]
    r = luma + 2 * (1 - k_r) * red
    b = luma + 2 * (1 - k_b) * blue
    g = (luma - k_r * r - k_b * b) / (1 - k_r - k_b)
    return np.clip(np.stack([r, g, b], axis=-1), 0.0, 1.0, dtype=np.float32)


def _planes(frame: VideoFrame, fmt: str, colour_range: int | None = None) -> np.ndarray:
    """Values ``(H, W, channels)`` in another format of the same colours, in [0, 1]."""
    options: dict[str, Any] = {}
    if colour_range is not None:
        options["src_color_range"] = options["dst_color_range"] = colour_range
    if frame.format.name != fmt:
        matrix = 0 if frame.format.is_rgb else _BT601  # the same on both sides
        if colour_range is not None and matrix:
            options["src_colorspace"] = options["dst_colorspace"] = matrix
        frame = frame.reformat(format=fmt, interpolation="BICUBIC", **options)
    deep = fmt.endswith("le")
    kind, largest = (np.dtype("<u2"), 65535) if deep else (np.dtype("u1"), 255)
    height, width = frame.height, frame.width
    channels = 3 // len(frame.planes) if not fmt.startswith("gray") else 1
    planes = []
    for plane in frame.planes:
        data: Any = plane
        rows = np.frombuffer(data, kind).reshape(-1, plane.line_size // kind.itemsize)
        values = rows[:height, : width * channels]
        planes.append(values.reshape(height, width, channels))
    return np.concatenate(planes, axis=-1).astype(np.float32) / largest


def _expand_luma(values: np.ndarray, colour_range: int, deep: bool) -> np.ndarray:
    if colour_range == _FULL:
        return values
    # 16-bit values are 8-bit ones shifted left, not multiplied by 257
    unit = 65535 / 256 if deep else 255
    return (values * unit - 16) / 219


def _expand_chroma(
    values: np.ndarray, colour_range: int, deep: bool
) -> tuple[np.ndarray, np.ndarray]:
    unit = 65535 / 256 if deep else 255
    scale = 224 if colour_range == _LIMITED else (65535 / 256 if deep else 255)
    centred = (values * unit - 128) / scale
    return centred[..., 0], centred[..., 1]


def rgb_to_yuv(
    rgb: np.ndarray, subsample: bool, bits: int = 8, rows: bool = True
) -> np.ndarray:
    r"""
    YUV planes of a frame, BT.709 matrix, limited range.

    Chroma of 4:2:0 is filtered and placed as H.264 expects: on the left one of each two
    columns, between each two rows.

    :param numpy.ndarray rgb: shape ``(H, W, 3)``, floating point, in [0, 1].
    :param bool subsample: 4:2:0, for even sizes, rather than 4:4:4.
    :param int bits: bits of a value.
    :param bool rows: whether subsampling is along the rows too, 4:2:2 if not.
    :return: (numpy.ndarray) uint8, or uint16 above 8 bits: planes one after the other, in
        the layout of ``VideoFrame.from_ndarray`` for 4:2:0 and 4:4:4.
    """
    kind, unit = (np.uint8, 1) if bits == 8 else (np.uint16, 2 ** (bits - 8))
    k_r, k_b = _MATRICES[_BT709]
    r, g, b = (rgb[..., i] for i in range(3))
    y = k_r * r + (1 - k_r - k_b) * g + k_b * b
    luma = 16 + 219 * y
    chroma = [
        128 + 224 * (b - y) / (2 * (1 - k_b)),
        128 + 224 * (r - y) / (2 * (1 - k_r)),
    ]
    if not subsample:
        return np.round(unit * np.stack([luma, *chroma])).astype(kind)
    small = []
    for plane in chroma:
        tall = (plane[0::2] + plane[1::2]) / 2 if rows else plane
        wide = np.pad(tall, ((0, 0), (1, 0)), mode="edge")
        small.append((wide[:, :-1:2] + 2 * wide[:, 1::2] + wide[:, 2::2]) / 4)
    flat = np.round(unit * np.concatenate([p.ravel() for p in (luma, *small)]))
    return flat.reshape(-1, luma.shape[1]).astype(kind)
