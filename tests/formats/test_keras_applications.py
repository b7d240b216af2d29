"""The families of keras.applications, narrow, shallow and small, as Keras 2 and Keras 3 write them."""

from __future__ import annotations

import importlib

import pytest
from keras_models import assert_same_outputs, flavours, outputs_of, randomise, samples

from edgeq.formats.keras import read

_COMMON = {"weights": None, "classes": 10, "classifier_activation": None}
_SMALL, _LARGE = {"input_shape": (40, 40, 3), **_COMMON}, {"input_shape": (75, 75, 3), **_COMMON}
_HEADLESS = {"weights": None, "include_top": False, "pooling": "avg", "input_shape": (40, 40, 3)}


def builder(keras, module):
    """The module behind a family, whose functions take depth and width as arguments."""
    return importlib.import_module(f"{keras.__name__}.src.applications.{module}")


def resnet(keras, version):
    """One residual block per stage."""
    module = builder(keras, "resnet")
    stack = getattr(module, f"stack_residual_blocks_v{version}", None) or getattr(module, f"stack{version}")

    def stages(x):
        for index, (filters, stride) in enumerate([(16, 1), (24, 2), (32, 2)]):
            x = stack(x, filters, 2, stride1=stride, name=f"stage{index}")
        return x

    return module.ResNet(stages, preact=version == 2, use_bias=True, **_SMALL)


def efficientnet_v2(module):
    blocks = module.DEFAULT_BLOCKS_ARGS["efficientnetv2-b0"]
    return module.EfficientNetV2(0.5, 0.3, 40, blocks_args=blocks, **_SMALL)


def inception_resnet(keras):
    """One residual block of each kind behind a convolution."""
    module = builder(keras, "inception_resnet_v2")
    module.layers = keras.layers  # in Keras 2 it is the builder of the whole that sets it
    image = keras.Input((20, 20, 3))
    x = module.conv2d_bn(image, 16, 3, strides=2)
    for kind in ("block35", "block17", "block8"):
        x = module.inception_resnet_block(x, 0.2, kind, 1)
    return keras.Model(image, x)


LIGHT = {
    "MobileNet": lambda keras: keras.applications.MobileNet(alpha=0.25, **_SMALL),
    "MobileNetV2": lambda keras: keras.applications.MobileNetV2(alpha=0.35, **_SMALL),
    "MobileNetV3 small": lambda keras: keras.applications.MobileNetV3Small(alpha=0.75, **_SMALL),
    "MobileNetV3 minimalistic": lambda keras: keras.applications.MobileNetV3Small(
        minimalistic=True, **_SMALL
    ),
    "VGG": lambda keras: keras.applications.VGG16(**_HEADLESS),
    "ResNet": lambda keras: resnet(keras, 1),
    "ResNetV2": lambda keras: resnet(keras, 2),
    "EfficientNet": lambda keras: builder(keras, "efficientnet").EfficientNet(0.5, 0.3, 40, **_SMALL),
    "EfficientNetV2": lambda keras: efficientnet_v2(builder(keras, "efficientnet_v2")),
    "DenseNet": lambda keras: builder(keras, "densenet").DenseNet([2, 2, 2, 2], **_SMALL),
    "NASNet": lambda keras: builder(keras, "nasnet").NASNet(
        penultimate_filters=288, num_blocks=1, stem_block_filters=32, skip_reduction=False, **_SMALL
    ),
    "InceptionResNetV2": inception_resnet,
    "ConvNeXt": lambda keras: builder(keras, "convnext").ConvNeXt([1, 1, 1, 1], [16, 24, 32, 40], **_SMALL),
    "Xception": lambda keras: keras.applications.Xception(**{**_HEADLESS, "input_shape": (71, 71, 3)}),
}
HEAVY = {
    "MobileNetV3 large": ("keras3", ".h5", lambda keras: keras.applications.MobileNetV3Large(**_SMALL)),
    "InceptionV3": ("keras3", ".keras", lambda keras: keras.applications.InceptionV3(**_LARGE)),
}


def check(version, suffix, build, folder):
    keras = flavours()[version]
    keras.backend.clear_session()
    model = build(keras)
    randomise(model, spread=None)
    inputs = samples(model, batch=1)
    path = folder / f"model{suffix}"
    model.save(path)
    assert_same_outputs(read(path), inputs, outputs_of(model, inputs), 1e-4)


@pytest.mark.parametrize(("version", "suffix"), [("keras3", ".keras"), ("keras2", ".h5")])
@pytest.mark.parametrize("family", LIGHT)
def test_family_computes_what_keras_computes(family, version, suffix, tmp_path):
    check(version, suffix, LIGHT[family], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("family", HEAVY)
def test_large_family_computes_what_keras_computes(family, tmp_path):
    check(*HEAVY[family], tmp_path)
