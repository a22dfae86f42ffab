"""S4Fusion: infrared-visible image fusion with cross-modal selective state spaces.

Ma et al., "S4Fusion: Saliency-aware Selective State Space Model for Infrared Visible Image
Fusion", arXiv 2405.20881.
"""
