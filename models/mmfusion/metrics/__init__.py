"""Measures of what the models give. Imports numpy and OpenCV only, so robots can use it too."""

from mmfusion.metrics.baselines import average_fusion, maximum_fusion
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
from mmfusion.metrics.summary import Summary, aggregate

__all__ = [
    "FUSION_METRICS",
    "MetricError",
    "Summary",
    "aggregate",
    "average_fusion",
    "average_gradient",
    "correlation_of_differences",
    "edge_preservation",
    "entropy",
    "fusion_metrics",
    "luma",
    "maximum_fusion",
    "mutual_information",
    "spatial_frequency",
    "standard_deviation",
    "structural_similarity",
    "value",
    "visual_information_fidelity",
]
