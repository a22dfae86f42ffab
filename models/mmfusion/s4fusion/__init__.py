"""S4Fusion: infrared-visible image fusion with cross-modal selective state spaces.

Ma et al., "S4Fusion: Saliency-aware Selective State Space Model for Infrared Visible Image
Fusion", arXiv 2405.20881.
"""

from mmfusion.s4fusion.network import S4Fusion, S4FusionConfig, padding

__all__ = ["S4Fusion", "S4FusionConfig", "padding"]
