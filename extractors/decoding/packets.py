"""What a packet of compressed video holds, as far as its first bits tell."""

# NAL units beside pictures: parameter sets, messages, delimiters, ends, filler.
H264_BESIDE = {6, 7, 8, 9, 10, 11, 12, 13, 15}
HEVC_BESIDE = set(range(32, 41))


def has_picture(codec: str, packet: bytes, extradata: bytes) -> bool:
    """Whether a packet has a part of a picture, or may have one.

    False for parameter sets, messages and delimiters alone in H.264 and HEVC: FFmpeg reports an
    error there, although nothing is lost.

    Args:
        codec: FFmpeg's name, as "h264".
        packet: Its bytes.
        extradata: The stream's header, which tells how packets of H.264 and HEVC are divided.
    """
    if codec == "h264":
        types = {header & 31 for header in _nal_headers(packet, extradata, 4)}
        return not types or not types <= H264_BESIDE
    if codec == "hevc":
        types = {header >> 1 & 63 for header in _nal_headers(packet, extradata, 21)}
        return not types or not types <= HEVC_BESIDE
    return True


def shows_frame(codec: str, packet: bytes, extradata: bytes) -> bool:
    """Whether a frame is shown for a packet: it has one, which others do not only refer to.

    Args:
        codec: FFmpeg's name, as "vp9".
        packet: Its bytes.
        extradata: The stream's header.
    """
    if codec == "vp8":
        return packet[0] & 0x10 > 0  # RFC 6386, 9.1
    if codec == "vp9":
        return _vp9_shows_frame(packet)
    return has_picture(codec, packet, extradata)


def _vp9_shows_frame(packet: bytes) -> bool:
    is_superframe = packet[-1] & 0xE0 == 0xC0  # hidden frames before one that is shown
    n_reserved = packet[0] & 0x30 == 0x30  # profile 3 has one bit more
    show_existing_frame, show_frame = 0x08 >> n_reserved, 0x02 >> n_reserved
    return is_superframe or packet[0] & (show_existing_frame | show_frame) > 0


def _nal_headers(packet: bytes, extradata: bytes, length_size_at: int) -> list[int]:
    """The first byte of each NAL unit; none of a packet that is damaged.

    Args:
        packet: Units that have their lengths before them, or start codes between them.
        extradata: Begins with 1 where it is the former.
        length_size_at: Where in extradata the number of bytes of each length stands.
    """
    if extradata[:1] != b"\1" or len(extradata) <= length_size_at:
        return [unit[0] for unit in packet.split(b"\0\0\1")[1:] if unit]
    length_size = (extradata[length_size_at] & 3) + 1
    headers = []
    at = 0
    while at < len(packet):
        start = at + length_size
        at = start + int.from_bytes(packet[at:start], "big")
        if not start < at <= len(packet):
            return []
        headers.append(packet[start])
    return headers
