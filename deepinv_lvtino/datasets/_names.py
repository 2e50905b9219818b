r"""Files by their names, and the bounds of what is read from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# What is opened as a video: no playlist and no list of other files (concat, hls, dash,
# sdp, image2, ...), and nothing that is not a file
_FORMATS = (
    "3g2,3gp,amv,apng,asf,asf_o,av1,avi,avs,avs2,avs3,bink,cavsvideo,cdxl,cine,dirac,"
    "dnxhd,dv,dvd,dxa,evc,film_cpk,flic,flv,gif,gxf,h261,h263,h264,hevc,ipu,ivf,kux,lmlm4,lvf,"
    "lxf,m4v,matroska,mgsts,mjpeg,mjpeg_2000,mlv,mov,mp4,mpeg,mpegts,mpegtsraw,mpegvideo,"
    "mtv,mv,mxf,nc,nsv,nut,nuv,obu,ogg,pva,r3d,rawvideo,rm,roq,rpl,ser,siff,smjpeg,smk,"
    "swf,ty,vc1,vc1test,vivo,vvc,webm,wtv,xmv,yuv4mpegpipe,mp3,aac,flac,wav,aiff"
)
#: Most pixels of a frame.
LARGEST = 8192 * 4320


class TooLarge(ValueError):
    """A picture with more pixels than can be read."""


def as_file(path: Path) -> str:
    r"""
    Address of a file for FFmpeg, which takes a name such as ``http:x`` for another thing.

    :param pathlib.Path path: the file.
    :return: (str) its address.
    """
    return f"file:{path.absolute()}"


def check_size(path: Path, height: int, width: int) -> None:
    r"""
    Refuse pictures too large for this package, before they are decoded.

    :param pathlib.Path path: the file.
    :param int height: height in pixels.
    :param int width: width in pixels.
    :raises TooLarge: if there are more pixels than in 8192x4320.
    """
    if height * width > LARGEST:
        msg = (
            f"`path`: {path} is {width}x{height} pixels large; at most {LARGEST} pixels "
            "(as 8192x4320) can be read. Make it smaller first."
        )
        raise TooLarge(msg)


#: From this version on PyAV takes names in any encoding unasked.
_LENIENT = 19


def only_this_file() -> dict[str, Any]:
    r"""
    Options of ``av.open`` for reading one video file and nothing else.

    :return: (dict) the options.
    """
    import av

    options = {
        "protocol_whitelist": "file",
        "format_whitelist": _FORMATS,
        "max_pixels": str(LARGEST),
    }
    if int(av.__version__.partition(".")[0]) >= _LENIENT:
        return {"options": options}
    # names in other encodings than UTF-8 are no reason to fail
    return {"options": options, "metadata_errors": "replace"}
