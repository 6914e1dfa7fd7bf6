"""The containers that are read, their suffixes, and whether a file is shorter than it says."""

from pathlib import Path
from typing import BinaryIO

# FFmpeg's demuxers of files that contain their streams. Not listed are those that open other files
# or addresses named in the file (hls, dash, concat, sdp, image2, vobsub, mlv, ...), those of
# devices and sound, and text, which FFmpeg renders as frames (tty).
DEMUXERS = (
    # Formats of cameras, editors, broadcasters and the web.
    "apng,asf,asf_o,av1,avi,avs2,avs3,cavsvideo,dhav,dirac,dnxhd,dv,evc,flic,flv,gif,gxf,h261,h263,"
    "h264,hevc,iff,ivf,jpegxl_anim,live_flv,lxf,m4v,matroska,mjpeg,mjpeg_2000,mov,mpeg,mpegts,"
    "mpegvideo,mxf,nsv,nut,nuv,obu,ogg,pva,r3d,rm,smjpeg,swf,ty,vc1,vc1test,vivo,vvc,wtv,"
    "yuv4mpegpipe,"
    # Formats of old programs and games.
    "3dostr,4xm,anm,bethsoftvid,bfi,bink,bmv,c93,cdxl,dsicin,dxa,ea,ea_cdata,film_cpk,filmstrip,"
    "gdv,hnm,idcin,ipmovie,ipu,iv8,jv,lmlm4,mm,moflex,mods,mtv,mv,mvi,paf,pmp,psxstr,rl2,roq,rpl,"
    "siff,smk,smush,thp,tiertexseq,tmv,txd,usm,vmd,wc3movie,xmv,yop,"
    # One image, or a sequence of them.
    "bmp_pipe,jpeg_pipe,jpegls_pipe,jpegxl_pipe,png_pipe,tiff_pipe,webp_pipe"
)

# File names by which videos are found in a folder; a video that is named itself may have any.
VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".mts", ".mxf", ".ogv", ".ts", ".webm", ".wmv"),
)

# An AVI file has one RIFF chunk for each gigabyte or so.
MAX_RIFF_CHUNKS = 10_000

EBML_HEADER_ID = bytes.fromhex("1a45dfa3")
SEGMENT_ID = bytes.fromhex("18538067")


def is_cut_off(path: Path, container: str) -> bool:
    """Whether an AVI or Matroska file has fewer bytes than its headers say.

    Args:
        path: The file.
        container: FFmpeg's name of its container. False for all others.
    """
    with path.open("rb") as file:
        if container == "avi":
            announced_end = _riff_end(file)
        elif "matroska" in container:
            announced_end = _segment_end(file)
        else:
            return False
    return announced_end > path.stat().st_size


def _riff_end(file: BinaryIO) -> int:
    """Return where the last of the consecutive RIFF chunks ends."""
    end = 0
    for _ in range(MAX_RIFF_CHUNKS):
        start = end + end % 2
        file.seek(start)
        header = file.read(8)
        if len(header) < 8 or header[:4] != b"RIFF":
            break
        end = start + 8 + int.from_bytes(header[4:], "little")
    return end


def _segment_end(file: BinaryIO) -> int:
    """Return where the segment after the EBML header ends; 0 if its size is unknown."""
    if file.read(4) != EBML_HEADER_ID or (n_bytes := _read_ebml_size(file)) is None:
        return 0
    file.seek(n_bytes, 1)
    if file.read(4) != SEGMENT_ID or (n_bytes := _read_ebml_size(file)) is None:
        return 0
    return file.tell() + n_bytes


def _read_ebml_size(file: BinaryIO) -> int | None:
    """Read a number whose leading zero bits count the bytes that follow; None if it is all ones."""
    first = int.from_bytes(file.read(1), "big")
    n_following = 8 - first.bit_length()
    if first == 0:
        return None
    mask = (1 << (7 - n_following)) - 1
    value = int.from_bytes(bytes([first & mask]) + file.read(n_following), "big")
    is_open = value == (1 << 7 * (n_following + 1)) - 1
    return None if is_open else value
