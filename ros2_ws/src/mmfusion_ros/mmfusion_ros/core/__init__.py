"""Everything between a message and a topic that needs no ROS."""
