// The kernels by name, with the struct that each is given: the CPU's tables and the GPU's entry points are made from
// it.
#pragma once

#define HESSPECT_FUSED_KERNELS(X)                            \
  X(layer_norm_value, LayerNormValue)                        \
  X(layer_norm_adjoint, LayerNormAdjoint)                    \
  X(layer_norm_tangent, LayerNormTangent)                    \
  X(layer_norm_adjoint_tangent, LayerNormAdjointTangent)     \
  X(softmax_value, SoftmaxValue)                             \
  X(softmax_tangent, SoftmaxTangent)                         \
  X(softmax_adjoint, SoftmaxAdjoint)                         \
  X(softmax_adjoint_tangent, SoftmaxAdjointTangent)          \
  X(log_softmax_value, LogSoftmaxValue)                      \
  X(log_softmax_adjoint, LogSoftmaxAdjoint)                  \
  X(log_softmax_tangent, LogSoftmaxTangent)                  \
  X(log_softmax_adjoint_tangent, LogSoftmaxAdjointTangent)   \
  X(pointwise_value, PointwiseValue)                         \
  X(pointwise_tangent, PointwiseTangent)                     \
  X(column_sums, ColumnSums)                                 \
  X(sum_partials, SumPartials)                               \
  X(rows_add, RowsAdd)                                       \
  X(channel_value, ChannelValue)                             \
  X(channel_tangent, ChannelTangent)                         \
  X(channel_adjoint_tangent, ChannelAdjointTangent)          \
  X(channel_rows_value, ChannelRowsValue)                    \
  X(channel_rows_tangent, ChannelRowsTangent)                \
  X(channel_rows_adjoint_tangent, ChannelRowsAdjointTangent) \
  X(cross_entropy_value, CrossEntropyValue)                  \
  X(cross_entropy_adjoint, CrossEntropyAdjoint)              \
  X(cross_entropy_adjoint_tangent, CrossEntropyAdjointTangent)
