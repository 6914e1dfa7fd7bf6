"""Parsing the first bits of compressed packets: whether they contain a frame and show one."""

# NAL units without frame data: parameter sets, messages, delimiters, ends, filler.
H264_NON_FRAME = {6, 7, 8, 9, 10, 11, 12, 13, 15}
HEVC_NON_FRAME = set(range(32, 41))


def has_frame_data(codec: str, packet: bytes, extradata: bytes) -> bool:
    """Whether a packet contains a part of a frame, or may contain one.

    False for parameter sets, messages and delimiters only, in H.264 and HEVC: FFmpeg reports
    an error for them, although no frame is lost.

    Args:
        codec: FFmpeg's name, as "h264".
        packet: Its bytes.
        extradata: The stream's header, which says how packets of H.264 and HEVC are divided.
    """
    if codec == "h264":
        types = {header & 31 for header in _nal_headers(packet, extradata, 4)}
        return not types or not types <= H264_NON_FRAME
    if codec == "hevc":
        types = {header >> 1 & 63 for header in _nal_headers(packet, extradata, 21)}
        return not types or not types <= HEVC_NON_FRAME
    return True


def shows_frame(codec: str, packet: bytes, extradata: bytes) -> bool:
    """Whether a packet shows a frame: it contains one that is not only a reference for others.

    Args:
        codec: FFmpeg's name, as "vp9".
        packet: Its bytes.
        extradata: The stream's header.
    """
    if codec == "vp8":
        return packet[0] & 0x10 > 0  # RFC 6386, 9.1
    if codec == "vp9":
        return _vp9_shows_frame(packet)
    return has_frame_data(codec, packet, extradata)


def _vp9_shows_frame(packet: bytes) -> bool:
    is_superframe = packet[-1] & 0xE0 == 0xC0  # hidden frames before one that is shown
    n_reserved = packet[0] & 0x30 == 0x30  # profile 3 has one bit more
    show_existing_frame, show_frame = 0x08 >> n_reserved, 0x02 >> n_reserved
    return is_superframe or packet[0] & (show_existing_frame | show_frame) > 0


def _nal_headers(packet: bytes, extradata: bytes, length_size_at: int) -> list[int]:
    """Return the first byte of each NAL unit; an empty list for a damaged packet.

    Args:
        packet: Units with a length before each, or with start codes between them.
        extradata: Begins with 1 in the former case.
        length_size_at: Index in extradata of the number of bytes of each length.
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
