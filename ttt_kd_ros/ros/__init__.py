"""The ROS 2 node: messages in, `Frame` to the `Segmenter`, messages out."""
