// What each kernel of the tangent program is given: raw pointers and sizes, the same on the CPU and on a GPU.
//
// Plain C++ without library headers, since NVRTC compiles it as well. An array named `*_dot` holds K tangents, one
// after the other; everything else exists once and serves each of them. A pointer said to be nullable may be null: then
// that term is zero, or that result is not wanted. A kernel is called once per *unit*, and units don't touch each
// other's results, so that they may run in any order.
#pragma once

#include "hesspect/tangent/function.h"

namespace hesspect::fused::raw {

using Index = long;
static_assert(sizeof(Index) == 8);

/// y = w∘x̂ + b, x̂ = r (x − ⟨x⟩), r = (⟨(x − ⟨x⟩)²⟩ + eps)^-½; where not centred without ⟨x⟩. A unit is a row.
template <class T>
struct LayerNormValue {
  const T* x;  // [rows, columns]
  const T* w;  // [columns]
  const T* b;  // [columns]
  T* y;        // [rows, columns]
  T* x_hat;    // [rows, columns]
  T* rstd;     // [rows]
  Index columns;
  double eps;
  bool centred;
};

/// x̄ = r (h − ⟨h⟩ − x̂⟨h∘x̂⟩), h = w∘ȳ; the sums of w̄ and b̄. A unit is `rows_per_unit` rows.
template <class T>
struct LayerNormAdjoint {
  const T* y_bar;  // [rows, columns]
  const T* w;
  const T* x_hat;
  const T* rstd;
  T* x_bar;      // [rows, columns], nullable
  T* m1;         // [rows], nullable with m2: ⟨h⟩, 0 where not centred
  T* m2;         // [rows]: ⟨h∘x̂⟩
  T* w_partial;  // [units, columns], nullable: sums of ȳ∘x̂ over the unit's rows
  T* b_partial;  // [units, columns], nullable: sums of ȳ
  Index rows, columns, rows_per_unit;
  bool centred;
  bool add;  // to x_bar what it should be, rather than write it
};

/// ẏ = w∘x̂̇ + ẇ∘x̂ + ḃ, x̂̇ = r (ẋ − a − x̂ b), a = ⟨ẋ⟩, b = ⟨ẋ∘x̂⟩. Unit u is row u / tangents of tangent u % tangents.
template <class T>
struct LayerNormTangent {
  const T* x_dot;  // [K, rows, columns], nullable
  const T* w;
  const T* w_dot;  // [K, columns], or one of zeros with stride 0
  const T* b_dot;  // [K, columns], or one of zeros with stride 0
  const T* x_hat;
  const T* rstd;
  T* y_dot;           // [K, rows, columns]; may be x_dot
  T* mean_dot;        // [K, rows], nullable with the next: a, 0 where not centred
  T* projection_dot;  // [K, rows]: b
  Index rows, columns, tangents, w_dot_stride, b_dot_stride;
  bool centred;
};

/// The tangent of LayerNormAdjoint. Unit u is block u / tangents of `rows_per_unit` rows, of tangent u % tangents.
template <class T>
struct LayerNormAdjointTangent {
  const T* y_bar_dot;       // [K, rows, columns], nullable
  const T* y_bar;           // [rows, columns], nullable (Gauss-Newton)
  const T* x_dot;           // [K, rows, columns], nullable
  const T* mean_dot;        // [K, rows], as LayerNormTangent left it; read where x_dot is there
  const T* projection_dot;  // [K, rows]
  const T* w;
  const T* w_dot;  // [K, columns], or one of zeros with stride 0
  const T* x_hat;
  const T* rstd;
  const T* m1;       // [rows], null where y_bar is or x_bar_dot is
  const T* m2;       // [rows]
  T* x_bar_dot;      // [K, rows, columns], nullable; may be y_bar_dot where it is not added to
  T* w_bar_partial;  // [K, blocks, columns], nullable
  T* b_bar_partial;  // [K, blocks, columns], nullable
  Index rows, columns, tangents, w_dot_stride, rows_per_unit, blocks;
  bool centred;
  bool add;
};

/// Which columns of a row of attention's scores count: those up to row % query_rows + offset where causal, else all.
struct Causal {
  bool on;
  Index query_rows;
  Index offset;
};

/// P = softmax(scale·S + mask). A unit is a row; row = (outer · heads + head) · query_rows + query of the mask.
template <class T>
struct SoftmaxValue {
  const T* s;     // [rows, columns]
  T* p;           // [rows, columns], may be s
  T* lse;         // [rows], nullable: log Σ exp of the row
  const T* mask;  // nullable; the row of it at outer·mask_outer + head·mask_head + query·mask_query, in elements
  Index columns;
  Index heads, query_rows, mask_outer, mask_head, mask_query;
  double scale;
  Causal causal;
  bool zero_if_masked;  // a row of which all is −∞ becomes zeros, not NaN
};

/// Ṗ = P∘(Ṡ − ⟨P, Ṡ⟩) · factor. Unit u is row u / tangents of tangent u % tangents, as in the next ones.
template <class T>
struct SoftmaxTangent {
  const T* p;      // [rows, columns]
  const T* s_dot;  // [K, rows, columns]
  T* p_dot;        // may be s_dot
  Index rows, columns, tangents;
  double factor;  // of Ṡ: the scale of SoftmaxValue
  Causal causal;
};

/// S̄ = P∘(P̄ − r) · factor, r = ⟨P, P̄⟩. A unit is a row.
template <class T>
struct SoftmaxAdjoint {
  const T* p;
  const T* p_bar;
  T* s_bar;  // nullable; may be p_bar
  T* r;      // [rows]
  Index columns;
  double factor;
  Causal causal;
};

/// S̄̇ = (Ṗ∘(P̄ − r) + P∘(P̄̇ − ṙ)) · factor, ṙ = ⟨Ṗ, P̄⟩ + ⟨P, P̄̇⟩.
template <class T>
struct SoftmaxAdjointTangent {
  const T* p;
  const T* p_dot;      // [K, rows, columns], nullable
  const T* p_bar;      // [rows, columns], nullable
  const T* r;          // [rows], nullable with p_bar
  const T* p_bar_dot;  // [K, rows, columns], nullable
  T* s_bar_dot;        // may be p_bar_dot
  Index rows, columns, tangents;
  double factor;
  Causal causal;
};

/// y = x − log Σ exp x. A unit is a row, as for the adjoint x̄ = ȳ − exp(y) r, r = Σ ȳ.
template <class T>
struct LogSoftmaxValue {
  const T* x;
  T* y;  // may be x
  Index columns;
};
template <class T>
struct LogSoftmaxAdjoint {
  const T* y;
  const T* y_bar;
  T* x_bar;  // nullable; may be y_bar
  T* r;      // [rows]
  Index columns;
};
/// ẏ = ẋ − ⟨exp y, ẋ⟩.
template <class T>
struct LogSoftmaxTangent {
  const T* y;
  const T* x_dot;
  T* y_dot;  // may be x_dot
  Index rows, columns, tangents;
};
/// x̄̇ = ȳ̇ − exp(y)∘(ẏ r + Σ ȳ̇).
template <class T>
struct LogSoftmaxAdjointTangent {
  const T* y;
  const T* y_dot;      // [K, rows, columns], nullable
  const T* r;          // [rows], nullable
  const T* y_bar_dot;  // [K, rows, columns], nullable
  T* x_bar_dot;        // may be y_bar_dot
  Index rows, columns, tangents;
};

constexpr Index kFlatUnit = 4096;  // elements of a flat array that a unit takes

/// y = f(x), f1 = f'(x); f2 = f''(x)·ȳ, x̄ = f'(x)·ȳ. A unit is kFlatUnit elements.
template <class T>
struct PointwiseValue {
  const T* x;      // [n]
  const T* y_bar;  // [n]; read where f2 or x_bar is wanted
  T* y;            // nullable, as the next three; each may be x or y_bar
  T* f1;
  T* f2;
  T* x_bar;
  Index n;
  Function function;
  double p[3];
};

/// out = f∘a (+ g∘b) (+ out), with f and g made once and a and b per tangent: ẏ = f'∘ẋ, x̄̇ = f'∘ȳ̇ + (f''ȳ)∘ẋ.
/// Unit u is kFlatUnit elements from (u / tangents) · kFlatUnit on, of tangent u % tangents.
template <class T>
struct PointwiseTangent {
  const T* f;  // [n], null with a
  const T* a;  // [K, n], nullable
  const T* g;  // [n], null with b
  const T* b;  // [K, n], nullable
  T* out;      // [K, n], may be a or b
  Index n, tangents;
  bool add;
};

/// partial[k, block, c] = Σ a[k, r, c] over the block's rows. Unit u is block u / batches of batch u % batches.
template <class T>
struct ColumnSums {
  const T* a;  // [batches, rows, columns]
  T* partial;  // [batches, blocks, columns]
  Index rows, columns, batches, rows_per_unit, blocks;
};

constexpr Index kColumnUnit = 512;  // columns that a unit of SumPartials takes

/// out[k, c] += Σ partial[k, block, c], in the order of the blocks. Unit u is kColumnUnit columns from
/// (u / batches) · kColumnUnit on, of batch u % batches.
template <class T>
struct SumPartials {
  const T* partial;  // [batches, blocks, columns]
  T* out;            // [batches, columns], rows out_stride apart
  Index blocks, columns, batches, out_stride;
};

/// out[k, index[order[j]]] += src[k, order[j]], in the order of j; `sorted` is index[order], ascending. Unit u is place
/// u / tangents of tangent u % tangents: the first place of each index adds all of its rows.
template <class T>
struct RowsAdd {
  const Index* sorted;  // [rows]
  const Index* order;   // [rows]
  const T* src;         // [K, rows, columns]
  T* out;               // [K, targets, columns], tangents out_stride apart
  Index rows, columns, targets, tangents, out_stride;
  Index padding;  // this index is skipped; −1: none
};

/// y = s_c x + t_c on [N, C, S]. A unit is one of the N·C rows.
template <class T>
struct ChannelValue {
  const T* x;
  const T* s;  // [channels]
  const T* t;  // [channels], nullable
  T* y;
  Index channels, columns;
};
/// ẏ = s ẋ + ṡ x + ṫ. Unit u is row u / tangents of tangent u % tangents, as in the next one.
template <class T>
struct ChannelTangent {
  const T* x_dot;  // [K, N, C, S], nullable
  const T* x;      // read where s_dot is there
  const T* s;
  const T* s_dot;  // [K, channels], nullable
  const T* t_dot;  // [K, channels], nullable
  T* y_dot;        // may be x_dot
  Index rows, channels, columns, tangents, s_dot_stride, t_dot_stride;
};
/// x̄̇ = s ȳ̇ + ṡ ȳ; Σ (x ȳ̇ + ẋ ȳ) and Σ ȳ̇ of each row. Without ẋ, ṡ and ȳ it is the adjoint itself.
template <class T>
struct ChannelAdjointTangent {
  const T* y_bar_dot;  // [K, N, C, S], nullable
  const T* y_bar;      // [N, C, S], nullable
  const T* x_dot;      // [K, N, C, S], nullable
  const T* x;          // [N, C, S], nullable
  const T* s;
  const T* s_dot;  // [K, channels], nullable
  T* x_bar_dot;    // nullable; may be y_bar_dot where it is not added to
  T* s_partial;    // [K, N, C], nullable
  T* t_partial;    // [K, N, C], nullable
  Index rows, channels, columns, tangents, s_dot_stride;
  bool add;
};

/// ChannelValue where the channels lie last, x [rows, channels]. A unit is `rows_per_unit` rows.
template <class T>
struct ChannelRowsValue {
  const T* x;
  const T* s;  // [channels]
  const T* t;  // [channels], nullable
  T* y;        // may be x
  Index rows, channels, rows_per_unit;
};
/// ChannelTangent likewise. Unit u is block u / tangents of rows, of tangent u % tangents, as in the next one.
template <class T>
struct ChannelRowsTangent {
  const T* x_dot;  // [K, rows, channels], nullable
  const T* x;      // read where s_dot is there
  const T* s;
  const T* s_dot;  // [K, channels], nullable
  const T* t_dot;  // [K, channels], nullable
  T* y_dot;        // may be x_dot
  Index rows, channels, tangents, s_dot_stride, t_dot_stride, rows_per_unit;
};
/// ChannelAdjointTangent likewise, with the sums of each block of rows.
template <class T>
struct ChannelRowsAdjointTangent {
  const T* y_bar_dot;  // [K, rows, channels], nullable
  const T* y_bar;      // [rows, channels], nullable
  const T* x_dot;      // [K, rows, channels], nullable
  const T* x;          // [rows, channels], nullable
  const T* s;
  const T* s_dot;  // [K, channels], nullable
  T* x_bar_dot;    // nullable; may be y_bar_dot where it is not added to
  T* s_partial;    // [K, blocks, channels], nullable
  T* t_partial;    // [K, blocks, channels], nullable
  Index rows, channels, tangents, s_dot_stride, rows_per_unit, blocks;
  bool add;
};

/// p = softmax(z) and what the losses of a row are made of. Targets are indices or probabilities, or neither.
template <class T>
struct CrossEntropyValue {
  const T* z;             // [rows, columns]
  T* p;                   // [rows, columns], nullable; may be z
  const Index* target;    // [rows], nullable; a target that is no column is of an ignored row
  const T* target_p;      // [rows, columns], nullable
  const T* weights;       // [columns], nullable: 1
  double* lse;            // [rows]: log Σ exp z
  double* target_sum;     // [rows]: z_target, or Σ w t z; 0 where ignored
  double* all_sum;        // [rows], nullable: Σ w z
  double* target_weight;  // [rows], nullable: Σ w t, where target_p is there
  Index columns;
};
/// z̄ = p A − onehot(target) B − w S, or p A − w t B − w S, with A, B, S of the row. A unit is a row.
template <class T>
struct CrossEntropyAdjoint {
  const T* p;
  const Index* target;  // nullable
  const T* target_p;    // nullable
  const T* weights;     // nullable: 1
  const T *a, *b, *s;   // [rows] each; s nullable
  T* z_bar;             // may be p
  Index columns;
};
/// z̄̇ = A p∘(ż − r), r = ⟨p, ż⟩. Unit u is row u / tangents of tangent u % tangents.
template <class T>
struct CrossEntropyAdjointTangent {
  const T* p;
  const T* z_dot;  // [K, rows, columns]
  const T* a;      // [rows]
  const T* r;      // [K, rows], nullable: summed here
  T* z_bar_dot;    // may be z_dot
  Index rows, columns, tangents;
};

}  // namespace hesspect::fused::raw
