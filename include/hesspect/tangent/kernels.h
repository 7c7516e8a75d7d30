// The fused kernels of the tangent program: passes over rows and flat arrays that ATen would take many passes for.
//
// Each kernel is a struct of what it reads and writes, and a function that runs it; arrays are named as in DESIGN's
// formulas: `x_bar` is the adjoint of x, `x_dot` its tangent, `x_bar_dot` the tangent of its adjoint. Arrays of
// tangents have K as their leading dimension; all else exists once. Tensors are contiguous and all of one type, float32
// or float64, and on one device; results are allocated by the caller. Shapes matter only by their number of elements. A
// tensor said to be nullable may be undefined: then that term is zero, or that result is not wanted.
//
//   at::Tensor y = at::empty_like(x), x_hat = at::empty_like(x), rstd = at::empty({rows}, x.options());
//   fused::layer_norm({.x = x, .w = w, .b = b, .y = y, .x_hat = x_hat, .rstd = rstd, .columns = 128, .eps = 1e-5});
//
// Results don't depend on the number of threads: sums over rows run over fixed blocks of rows, in a fixed order. On the
// CPU the best instruction set that the machine has is chosen at run time; on a GPU NVRTC compiles the same source at
// first use. What does not fit (sizes, types, devices) throws std::logic_error, for it is a mistake of the caller.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

#include "hesspect/tangent/function.h"

namespace hesspect::fused {

// ---- Layer norm, and RMS norm where not centred: y = w∘x̂ + b, x̂ = r (x − ⟨x⟩) ----

struct LayerNorm {
  at::Tensor x{};      // [rows, columns]
  at::Tensor w{};      // [columns], nullable: ones
  at::Tensor b{};      // [columns], nullable
  at::Tensor y{};      // out [rows, columns]; may be x_hat where w and b are undefined
  at::Tensor x_hat{};  // out [rows, columns], may be x
  at::Tensor rstd{};   // out [rows]
  std::int64_t columns = 0;
  double eps = 0;
  bool centred = true;
};
void layer_norm(const LayerNorm& args);

struct LayerNormAdjoint {
  at::Tensor y_bar{};
  at::Tensor w{};  // nullable: ones
  at::Tensor x_hat{}, rstd{};
  at::Tensor x_bar{};     // out [rows, columns], nullable; may be y_bar
  at::Tensor m1{}, m2{};  // out [rows], nullable: ⟨h⟩ and ⟨h∘x̂⟩ with h = w∘ȳ
  at::Tensor w_bar{};     // [columns], added to, nullable
  at::Tensor b_bar{};     // [columns], added to, nullable
  std::int64_t columns = 0;
  bool centred = true;
  bool add = false;  // to x_bar
};
void layer_norm_adjoint(const LayerNormAdjoint& args);

struct LayerNormTangent {
  at::Tensor x_dot{};  // [K, rows, columns], nullable
  at::Tensor w{};      // nullable: ones
  at::Tensor w_dot{};  // [K, columns], any stride between tangents, nullable
  at::Tensor b_dot{};  // likewise
  at::Tensor x_hat{}, rstd{};
  at::Tensor y_dot{};                       // out [K, rows, columns]; may be x_dot
  at::Tensor mean_dot{}, projection_dot{};  // out [K, rows]: ⟨ẋ⟩ and ⟨ẋ∘x̂⟩, nullable
  std::int64_t columns = 0;
  bool centred = true;
};
void layer_norm_tangent(const LayerNormTangent& args);

struct LayerNormAdjointTangent {
  at::Tensor y_bar_dot{};                   // [K, rows, columns], nullable
  at::Tensor y_bar{};                       // [rows, columns], nullable: Gauss-Newton
  at::Tensor x_dot{};                       // [K, rows, columns], nullable
  at::Tensor mean_dot{}, projection_dot{};  // of layer_norm_tangent, with x_dot
  at::Tensor w{};                           // nullable: ones
  at::Tensor w_dot{};                       // [K, columns], nullable
  at::Tensor x_hat{}, rstd{};
  at::Tensor m1{}, m2{};   // of layer_norm_adjoint, with y_bar
  at::Tensor x_bar_dot{};  // out [K, rows, columns], nullable; may be y_bar_dot
  at::Tensor w_bar_dot{};  // [K, columns], any stride between tangents, added to, nullable
  at::Tensor b_bar_dot{};  // likewise
  std::int64_t columns = 0;
  std::int64_t tangents = 1;
  bool centred = true;
  bool add = false;  // to x_bar_dot
};
void layer_norm_adjoint_tangent(const LayerNormAdjointTangent& args);

// ---- Softmax over rows, with attention's scale and masks ----

/// Row i of the scores sees columns up to i % query_rows + offset alone, where on; what lies beyond is zero in all
/// results.
struct CausalMask {
  bool on = false;
  std::int64_t query_rows = 1;
  std::int64_t offset = 0;
};

struct Softmax {
  at::Tensor s{};     // [rows, columns]
  at::Tensor p{};     // out; may be s
  at::Tensor lse{};   // out [rows], nullable: log Σ exp
  at::Tensor mask{};  // added to the scaled scores, nullable; broadcast to [outer, heads, query_rows, columns]
  std::int64_t columns = 0;
  std::int64_t heads = 1, query_rows = 1;  // of the mask's shape
  double scale = 1;
  CausalMask causal{};
  bool zero_if_masked = false;  // a row that is −∞ throughout becomes zeros rather than NaN
};
void softmax(const Softmax& args);

/// Ṗ = scale P∘(Ṡ − ⟨P, Ṡ⟩).
struct SoftmaxTangent {
  at::Tensor p{};
  at::Tensor s_dot{};  // [K, rows, columns]
  at::Tensor p_dot{};  // out; may be s_dot
  std::int64_t columns = 0;
  double scale = 1;
  CausalMask causal{};
};
void softmax_tangent(const SoftmaxTangent& args);

/// S̄ = scale P∘(P̄ − r), r = ⟨P, P̄⟩.
struct SoftmaxAdjoint {
  at::Tensor p{}, p_bar{};
  at::Tensor s_bar{};  // out, nullable; may be p_bar
  at::Tensor r{};      // out [rows]
  std::int64_t columns = 0;
  double scale = 1;
  CausalMask causal{};
};
void softmax_adjoint(const SoftmaxAdjoint& args);

/// S̄̇ = scale (Ṗ∘(P̄ − r) + P∘(P̄̇ − ⟨Ṗ, P̄⟩ − ⟨P, P̄̇⟩)).
struct SoftmaxAdjointTangent {
  at::Tensor p{};
  at::Tensor p_dot{};      // [K, rows, columns], nullable
  at::Tensor p_bar{};      // [rows, columns], nullable
  at::Tensor r{};          // of softmax_adjoint, with p_bar
  at::Tensor p_bar_dot{};  // [K, rows, columns], nullable
  at::Tensor s_bar_dot{};  // out; may be p_bar_dot
  std::int64_t columns = 0;
  double scale = 1;
  CausalMask causal{};
};
void softmax_adjoint_tangent(const SoftmaxAdjointTangent& args);

struct LogSoftmax {
  at::Tensor x{};
  at::Tensor y{};  // out; may be x
  std::int64_t columns = 0;
};
void log_softmax(const LogSoftmax& args);

/// ẏ = ẋ − ⟨exp y, ẋ⟩.
struct LogSoftmaxTangent {
  at::Tensor y{};
  at::Tensor x_dot{};  // [K, rows, columns]
  at::Tensor y_dot{};  // out; may be x_dot
  std::int64_t columns = 0;
};
void log_softmax_tangent(const LogSoftmaxTangent& args);

/// x̄ = ȳ − exp(y) r, r = Σ ȳ.
struct LogSoftmaxAdjoint {
  at::Tensor y{}, y_bar{};
  at::Tensor x_bar{};  // out, nullable; may be y_bar
  at::Tensor r{};      // out [rows]
  std::int64_t columns = 0;
};
void log_softmax_adjoint(const LogSoftmaxAdjoint& args);

/// x̄̇ = ȳ̇ − exp(y)∘(ẏ r + Σ ȳ̇).
struct LogSoftmaxAdjointTangent {
  at::Tensor y{};
  at::Tensor y_dot{};      // [K, rows, columns], nullable
  at::Tensor r{};          // of log_softmax_adjoint, nullable
  at::Tensor y_bar_dot{};  // [K, rows, columns], nullable
  at::Tensor x_bar_dot{};  // out; may be y_bar_dot
  std::int64_t columns = 0;
};
void log_softmax_adjoint_tangent(const LogSoftmaxAdjointTangent& args);

// ---- Functions of one number ----

/// y = f(x), f1 = f'(x), f2 = f''(x)·ȳ, x̄ = f'(x)·ȳ: whichever are defined. Each may be x or y_bar itself.
struct Pointwise {
  Function function = Function::kRelu;
  at::Tensor x{};
  at::Tensor y_bar{};  // read for f2 and x_bar alone
  at::Tensor y{}, f1{}, f2{}, x_bar{};
  std::array<double, 3> parameters{};  // function.h says which
};
void pointwise(const Pointwise& args);

/// out = f∘a + g∘b: ẏ = f1∘ẋ, and x̄̇ = f1∘ȳ̇ + f2∘ẋ. A term of which either is undefined is zero.
struct PointwiseTangent {
  at::Tensor f{};    // [n]
  at::Tensor a{};    // [K, n]
  at::Tensor g{};    // [n]
  at::Tensor b{};    // [K, n]
  at::Tensor out{};  // [K, n]; may be a or b
  bool add = false;  // to out
};
void pointwise_tangent(const PointwiseTangent& args);

// ---- Sums of rows ----

/// out[k, c] += Σ_r a[k, r, c]: the adjoint of a bias.
struct ColumnSums {
  at::Tensor a{};    // [K, rows, columns]
  at::Tensor out{};  // [K, columns], any stride between tangents
  std::int64_t columns = 0;
};
void column_sums(const ColumnSums& args);

/// Rows in the order of the index that they go to; made once per index (a batch's tokens) and used by each product.
struct RowOrder {
  at::Tensor sorted{};  // [rows] int64: the index, ascending
  at::Tensor order{};   // [rows] int64: which row has it
};
RowOrder order_rows(const at::Tensor& index);

/// out[k, index[r]] += src[k, r], rows of one index in their order: the adjoint of an embedding. No atomics, on a GPU
/// neither.
struct RowsAdd {
  RowOrder rows{};
  at::Tensor src{};  // [K, rows, columns]
  at::Tensor out{};  // [K, targets, columns], any stride between tangents
  std::int64_t columns = 0;
  std::int64_t padding_index = -1;  // is skipped; −1: none
};
void rows_add(const RowsAdd& args);

// ---- A scale and a shift per channel of [N, C, S] (batch norm in eval mode): y = s_c x + t_c ----

struct Channels {
  at::Tensor x{};
  at::Tensor s{};                          // [C]
  at::Tensor t{};                          // [C], nullable
  at::Tensor y{};                          // out; may be x
  std::int64_t channels = 0, columns = 0;  // C and S
};
void channels(const Channels& args);

/// ẏ = s ẋ + ṡ x + ṫ.
struct ChannelsTangent {
  at::Tensor x_dot{};  // [K, N, C, S], nullable
  at::Tensor x{};      // nullable where s_dot is
  at::Tensor s{};
  at::Tensor s_dot{}, t_dot{};  // [K, C], any stride between tangents, nullable
  at::Tensor y_dot{};           // out; may be x_dot
  std::int64_t channels = 0, columns = 0, tangents = 1;
};
void channels_tangent(const ChannelsTangent& args);

/// x̄̇ = s ȳ̇ + ṡ ȳ, s̄̇ += Σ (x ȳ̇ + ẋ ȳ), t̄̇ += Σ ȳ̇. With ȳ as y_bar_dot and nothing else it is the adjoint itself.
struct ChannelsAdjointTangent {
  at::Tensor y_bar_dot{};  // [K, N, C, S], nullable
  at::Tensor y_bar{};      // [N, C, S], nullable
  at::Tensor x_dot{};      // [K, N, C, S], nullable
  at::Tensor x{};          // [N, C, S], nullable where s_bar_dot is
  at::Tensor s{};
  at::Tensor s_dot{};                   // [K, C], any stride between tangents, nullable
  at::Tensor x_bar_dot{};               // out [K, N, C, S], nullable; may be y_bar_dot
  at::Tensor s_bar_dot{}, t_bar_dot{};  // [K, C], any stride between tangents, added to, nullable
  std::int64_t channels = 0, columns = 0, tangents = 1;
  bool add = false;  // to x_bar_dot
};
void channels_adjoint_tangent(const ChannelsAdjointTangent& args);

// ---- Cross entropy on rows of logits ----

/// p = softmax(z), and sums of each row in float64: its loss is made of them, e.g. lse − target_sum.
struct CrossEntropy {
  at::Tensor z{};         // [rows, columns]
  at::Tensor target{};    // [rows] int64, nullable; of an ignored row it is no column (−100)
  at::Tensor target_p{};  // [rows, columns] probabilities, nullable
  at::Tensor weights{};   // [columns], nullable: ones
  at::Tensor p{};         // out, nullable; may be z
  // Out, [rows] each, float64, nullable but for the first two.
  at::Tensor lse{};            // log Σ exp z
  at::Tensor target_sum{};     // z of the target (not weighted), 0 where ignored; or Σ w t z
  at::Tensor all_sum{};        // Σ w z, for label smoothing
  at::Tensor target_weight{};  // Σ w t, of probabilities
  std::int64_t columns = 0;
};
void cross_entropy(const CrossEntropy& args);

/// z̄ = p A − onehot(target) B − w S, or p A − w∘t B − w S where target_p is given.
struct CrossEntropyAdjoint {
  at::Tensor p{};
  at::Tensor target{}, target_p{}, weights{};  // as above
  at::Tensor a{}, b{}, s{};                    // [rows]; s nullable
  at::Tensor z_bar{};                          // out; may be p
  std::int64_t columns = 0;
};
void cross_entropy_adjoint(const CrossEntropyAdjoint& args);

/// z̄̇ = A p∘(ż − r), r = ⟨p, ż⟩.
struct CrossEntropyAdjointTangent {
  at::Tensor p{};
  at::Tensor z_dot{};      // [K, rows, columns]
  at::Tensor a{};          // [rows]
  at::Tensor z_bar_dot{};  // out; may be z_dot
  std::int64_t columns = 0;
  at::Tensor r{};  // [K, rows], nullable: summed here. Where it is given, columns may be some of the classes
};
void cross_entropy_adjoint_tangent(const CrossEntropyAdjointTangent& args);

// ---- Instruction sets ----

enum class InstructionSet : int { kBaseline, kAvx2, kAvx512 };

/// Whether this machine has it.
bool has(InstructionSet set);

/// What the CPU's kernels run in: at first the best that the machine has. Set by tests and measurements alone.
InstructionSet instruction_set();
void use_instruction_set(InstructionSet set);

}  // namespace hesspect::fused
