"""How images are sent, as image_transport names it.

Images that are not raw come on the topic of their transport's name below that of the raw ones.
"""

from __future__ import annotations

RAW, COMPRESSED, COMPRESSED_DEPTH = TRANSPORTS = ("raw", "compressed", "compressedDepth")
COLOUR_TRANSPORTS = (RAW, COMPRESSED)
