"""EfficientMFD: joint infrared-visible image fusion and object detection.

Zhang et al., "EfficientMFD: Towards More Efficient Multimodal Synchronous Fusion Detection",
arXiv:2403.09323 (later "E2E-MFD", NeurIPS 2024); its detector is that of Chen et al.,
"DiffusionDet: Diffusion Model for Object Detection", ICCV 2023.
"""
