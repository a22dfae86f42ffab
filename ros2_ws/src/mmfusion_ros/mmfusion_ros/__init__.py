"""ROS 2 house of mmfusion: node, synchroniser, engines, replay. Needs no PyTorch."""
