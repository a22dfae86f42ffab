"""Measures of what the models give. Imports numpy and OpenCV only, so robots can use it too.

Comparing saliency and detections with ground truth takes the packages of ``mmfusion[eval]``.
"""

from mmfusion.metrics.baselines import average_fusion, maximum_fusion, pyramid_fusion
from mmfusion.metrics.detection import (
    AveragePrecision,
    DetectionFigures,
    JudgedBoxes,
    average_precision,
    detection_library,
)
from mmfusion.metrics.fusion import (
    FUSION_METRICS,
    average_gradient,
    correlation_of_differences,
    edge_preservation,
    entropy,
    fusion_metrics,
    mutual_information,
    spatial_frequency,
    standard_deviation,
    structural_similarity,
    visual_information_fidelity,
)
from mmfusion.metrics.pictures import MetricError, luma, value
from mmfusion.metrics.saliency import (
    SaliencyFigures,
    compare_saliency,
    saliency_library,
    structure_and_error,
    summarise_saliency,
)
from mmfusion.metrics.summary import Summary, aggregate

__all__ = [
    "FUSION_METRICS",
    "AveragePrecision",
    "DetectionFigures",
    "JudgedBoxes",
    "MetricError",
    "SaliencyFigures",
    "Summary",
    "aggregate",
    "average_fusion",
    "average_gradient",
    "average_precision",
    "compare_saliency",
    "correlation_of_differences",
    "detection_library",
    "edge_preservation",
    "entropy",
    "fusion_metrics",
    "luma",
    "maximum_fusion",
    "mutual_information",
    "pyramid_fusion",
    "saliency_library",
    "spatial_frequency",
    "standard_deviation",
    "structural_similarity",
    "structure_and_error",
    "summarise_saliency",
    "value",
    "visual_information_fidelity",
]
