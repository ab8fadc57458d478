"""Stand-in for ROS 2's Python package `sensor_msgs_py`."""
