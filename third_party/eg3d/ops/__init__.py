"""The operators of the networks; each takes `impl`, see `eg3d.ops.build`."""

from eg3d.ops.bias_act import bias_act
from eg3d.ops.conv2d_resample import conv2d_resample, modulated_conv2d
from eg3d.ops.conv3x3 import conv3x3
from eg3d.ops.modulated_layer import modulated_layer
from eg3d.ops.upfirdn2d import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d

__all__ = [
    "bias_act",
    "conv2d_resample",
    "conv3x3",
    "downsample2d",
    "filter2d",
    "modulated_conv2d",
    "modulated_layer",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
