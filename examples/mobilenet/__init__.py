"""A real pretrained MobileNetV2: obtained, rebuilt in Keras, ready for `edgeq convert`."""
