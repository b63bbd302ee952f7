"""What each operator of an exported program does to channels, as data."""

from __future__ import annotations

CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}

UNARY = {
    *("relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "sigmoid", "tanh"),
    *("leaky_relu", "elu", "selu", "celu", "mish", "softplus", "softsign", "log_sigmoid"),
    *("exp", "log", "log1p", "sqrt", "rsqrt", "abs", "neg", "clamp", "clamp_min", "clamp_max"),
    *("square", "erf", "sin", "cos", "reciprocal", "round", "floor", "sign", "threshold"),
    *("dropout", "feature_dropout", "alpha_dropout", "to", "_to_copy", "clone", "contiguous"),
    *("detach", "alias", "lift_fresh_copy", "detach_copy", "logical_not", "isnan"),
}
"""Act on every element alone."""

BINARY = {
    *("add", "sub", "rsub", "mul", "div", "maximum", "minimum", "pow", "fmod", "remainder"),
    *("gt", "ge", "lt", "le", "eq", "ne", "where", "lerp", "logical_and", "logical_or"),
    *("addcmul", "atan2", "masked_fill", "expand_as"),
}
"""Act on the elements of several tensors at the same place."""

MOVES = {
    *("view", "reshape", "_unsafe_view", "permute", "transpose", "t", "flatten", "unflatten"),
    *("squeeze", "unsqueeze", "expand", "select", "slice", "split", "split_with_sizes", "chunk"),
    *("unbind", "cat", "concat", "stack", "movedim", "swapaxes", "repeat", "flip", "roll"),
    *("narrow", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "tile", "numpy_T"),
}
"""Move elements about; they can be run on labels as they are."""

SPLITS = {"split", "split_with_sizes", "chunk", "view", "reshape", "_unsafe_view", "unflatten"}
"""Moves that may cut a channel axis into equal parts."""

SPATIAL = {
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("adaptive_max_pool1d", "adaptive_max_pool2d", "max_pool2d_with_indices"),
    *("upsample_nearest1d", "upsample_nearest2d", "upsample_bilinear2d", "upsample_linear1d"),
    *("upsample_bicubic2d", "_upsample_nearest_exact2d", "upsample_nearest3d"),
}
"""Mix positions, never channels."""

REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min", "prod", "logsumexp", "var", "std"}
ALONG = {"softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "argmax", "argmin"}
"""Mix what lies along one axis and keep the shape (or drop that axis)."""

PADS = {"pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad1d"} | {
    "replication_pad2d",
    "zero_pad2d",
}
BATCH_NORMS = {"batch_norm", "instance_norm"}
RECURRENT = {"gru", "lstm", "rnn_tanh", "rnn_relu"}
